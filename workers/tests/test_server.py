"""The message loop against an engine of a test; needs nothing but Python."""

import array
import io
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from indexscope_worker import frames, server  # noqa: E402


class Scripted:
    """Losses are the token ids."""

    def __init__(self):
        self.sets = {}

    def describe(self):
        return {"engine": "scripted"}

    def calibrate(self, name, sequences):
        self.sets[name] = sequences

    def losses(self, name, pattern, sequence, resume, check):
        check()
        if pattern == "FX":
            raise server.Refused("bad_pattern", "no pattern", "use F and S")
        return array.array("f", self.sets[name][sequence][1:]).tobytes(), len(pattern)

    def record(self, name, pattern, sequence, shadow, check):
        yield 0, False, [1, 1, 1], array.array("i", [0]).tobytes()
        if shadow:
            yield 1, True, [1, 1, 1], array.array("i", [-1]).tobytes()


def ask(*requests):
    """Runs the loop over requests and returns its replies."""
    stream = io.BytesIO()
    for head, body in requests:
        frames.write(stream, head, body)
    replies = io.BytesIO()
    server.serve(Scripted(), io.BytesIO(stream.getvalue()), replies)
    replies.seek(0)
    found = []
    while (frame := frames.read(replies)) is not None:
        found.append(frame)
    return found


CALIBRATE = ({"id": 1, "do": "calibrate", "set": "main", "lengths": [3, 2]}, array.array("i", [1, 2, 3, 4, 5]).tobytes())


class Loop(unittest.TestCase):
    def test_losses_come_by_unit(self):
        losses = ({"id": 2, "do": "losses", "units": [["FS", 0], ["FF", 1]]}, b"")
        hello, first, unit, last, done = ask(CALIBRATE, losses)
        self.assertEqual(hello[0]["hello"], "indexscope-worker")
        self.assertEqual(first[0], {"id": 1, "done": True})
        self.assertEqual((unit[0]["unit"], unit[0]["layers"]), (["FS", 0], 2))
        self.assertEqual(array.array("f", unit[1]).tolist(), [2.0, 3.0])
        self.assertEqual(array.array("f", last[1]).tolist(), [5.0])
        self.assertEqual(done[0], {"id": 2, "done": True})

    def test_sets_say_whose_they_are(self):
        record = ({"id": 2, "do": "record", "pattern": "FS", "sequences": [0], "shadow": True}, b"")
        self.assertEqual([head.get("own", False) for head, _ in ask(CALIBRATE, record)[2:4]], [False, True])

    def test_what_cannot_be_answered_is_refused_and_the_next_request_is_answered(self):
        replies = ask(
            CALIBRATE,
            ({"id": 2, "do": "losses", "units": [["FX", 0]]}, b""),
            ({"id": 3, "do": "dance"}, b""),
            ({"id": 4, "do": "losses", "units": [["F", 9]]}, b""),
            CALIBRATE,
        )
        codes = [head["error"]["code"] for head, _ in replies if "error" in head]
        self.assertEqual(codes, ["bad_pattern", "unsupported", "failed"])
        self.assertEqual(replies[-1][0], {"id": 1, "done": True})

    def test_a_set_whose_lengths_are_wrong_is_refused(self):
        head = {**CALIBRATE[0], "lengths": [9]}
        self.assertEqual(ask((head, CALIBRATE[1]))[-1][0]["error"]["code"], "failed")


if __name__ == "__main__":
    unittest.main()
