"""The message loop against an engine of a test; needs nothing but Python."""

from __future__ import annotations

import array
import io
import os
import socket
import sys
import tempfile
import threading
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from indexscope_worker import frames, server


class Scripted:
    """Losses are the token ids."""

    def __init__(self):
        self.sets = {}
        self.waits = threading.Event()

    def describe(self):
        return {"engine": "scripted"}

    def calibrate(self, name, sequences):
        self.sets[name] = sequences

    def forget(self):
        self.sets.clear()

    def losses(self, name, units, at, options, check):
        pattern, sequence = units[at]
        if pattern == "wait":
            self.waits.set()
            while True:
                check()
        if pattern == "FX":
            raise server.Refused("bad_pattern", "no pattern", "use F and S")
        if pattern == "memory":
            raise RuntimeError("CUDA out of memory")
        ids = self.sets[name][sequence][1:]
        top1 = array.array("i", ids).tobytes() if options.get("top1") else None
        kl = array.array("f", [0.5] * len(ids)).tobytes() if options.get("kl") else None
        return server.Loss(array.array("f", ids).tobytes(), len(pattern), top1, kl)

    def record(self, name, pattern, sequence, shadow, check):
        yield 0, False, [1, 1, 1], array.array("i", [0]).tobytes()
        if shadow:
            yield 1, True, [1, 1, 1], array.array("i", [-1]).tobytes()

    def decode(self, name, pattern, sequence, tokens, check):
        return array.array("i", range(tokens)).tobytes()

    def memory(self):
        return 1, 2


def frames_of(stream):
    found = []
    while (frame := frames.read(stream)) is not None:
        found.append(frame)
    return found


def ask(*requests):
    """Runs the loop over requests and returns its replies."""
    stream, replies = io.BytesIO(), io.BytesIO()
    for head, body in requests:
        frames.write(stream, head, body)
    server.serve(Scripted(), server.Ranks(), io.BytesIO(stream.getvalue()), replies)
    replies.seek(0)
    return frames_of(replies)


IDS = array.array("i", [1, 2, 3, 4, 5]).tobytes()
CALIBRATE = ({"id": 1, "do": "calibrate", "set": "main", "lengths": [3, 2]}, IDS)


class Loop(unittest.TestCase):
    def test_losses_come_by_unit(self):
        losses = ({"id": 2, "do": "losses", "units": [["FS", 0], ["FF", 1]]}, b"")
        hello, first, unit, last, done = ask(CALIBRATE, losses)
        self.assertEqual((hello[0]["hello"], hello[0]["alive"]), ("indexscope-worker", server.ALIVE))
        self.assertEqual(first[0], {"id": 1, "done": True})
        self.assertEqual((unit[0]["unit"], unit[0]["layers"]), (["FS", 0], 2))
        self.assertEqual(array.array("f", unit[1]).tolist(), [2.0, 3.0])
        self.assertEqual(array.array("f", last[1]).tolist(), [5.0])
        self.assertEqual(done[0], {"id": 2, "done": True})

    def test_what_was_asked_for_follows_the_losses(self):
        losses = {"id": 2, "do": "losses", "units": [["FS", 0]], "top1": True, "kl": "FF"}
        head, body = ask(CALIBRATE, (losses, b""))[2]
        self.assertEqual((head["top1"], head["kl"], len(body)), (True, True, 24))
        self.assertEqual(array.array("i", body[8:16]).tolist(), [2, 3])
        self.assertEqual(array.array("f", body[16:]).tolist(), [0.5, 0.5])

    def test_sets_say_whose_they_are(self):
        record = ({"id": 2, "do": "record", "pattern": "FS", "sequences": [0], "shadow": True}, b"")
        self.assertEqual([head.get("own", False) for head, _ in ask(CALIBRATE, record)[2:4]], [False, True])

    def test_the_rest_of_the_messages(self):
        decode = ({"id": 2, "do": "decode", "pattern": "FS", "sequences": [0, 1], "tokens": 2}, b"")
        replies = ask(CALIBRATE, decode, ({"id": 3, "do": "memory"}, b""), ({"id": 4, "do": "shutdown"}, b""))
        self.assertEqual([array.array("i", body).tolist() for _, body in replies[2:4]], [[0, 1], [0, 1]])
        self.assertEqual(replies[-1][0], {"id": 3, "done": True, "free": 1, "total": 2})

    def test_what_cannot_be_answered_is_refused_and_the_next_request_is_answered(self):
        replies = ask(
            CALIBRATE,
            ({"id": 2, "do": "losses", "units": [["FX", 0]]}, b""),
            ({"id": 3, "do": "dance"}, b""),
            ({"id": 4, "do": "losses", "units": [["F", 9]]}, b""),
            ({"id": 5, "do": "losses", "units": [["memory", 0]]}, b""),
            ({"id": 6, "do": "calibrate", "lengths": [9]}, IDS),
            CALIBRATE,
        )
        errors = [head["error"] for head, _ in replies if "error" in head]
        codes = [error["code"] for error in errors]
        self.assertEqual(codes, ["bad_pattern", "unsupported", "failed", "out_of_memory", "failed"])
        self.assertEqual(errors[0]["hint"], "use F and S")
        self.assertEqual(replies[-1][0], {"id": 1, "done": True})

    def test_a_cut_frame_ends_the_loop(self):
        stream, replies = io.BytesIO(b'{"id": 1, "do": "calibrate", "bytes": 9}\nabc'), io.BytesIO()
        server.serve(Scripted(), server.Ranks(), stream, replies)
        self.assertEqual(len(replies.getvalue().splitlines()), 1)


class Connection(unittest.TestCase):
    """A loop in a thread, at a Unix socket."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.folder.name, "socket")
        self.engine, ranks = Scripted(), server.Ranks()
        door = server.open_socket(self.path)
        self.addCleanup(door.close)
        self.addCleanup(self.folder.cleanup)

        def loop():
            for _ in range(2):
                stream = server.accept(door)
                requests, replies = stream.makefile("rb"), stream.makefile("wb")
                server.serve(self.engine, ranks, requests, replies, alive=0.01)
                self.engine.forget()
                stream.close()

        threading.Thread(target=loop, daemon=True).start()

    def connect(self):
        stream = socket.socket(socket.AF_UNIX)
        stream.connect(self.path)
        self.addCleanup(stream.close)
        return stream, stream.makefile("rb"), stream.makefile("wb")

    def test_only_this_user_may_connect_and_nobody_takes_its_place(self):
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)
        with self.assertRaises(SystemExit):
            server.open_socket(self.path)
        with self.assertRaises(SystemExit):
            server.open_socket(__file__)

    def test_a_cancel_is_heard_and_signs_of_life_come_meanwhile(self):
        _, replies, requests = self.connect()
        self.assertEqual(frames.read(replies)[0]["engine"], "scripted")
        frames.write(requests, {"id": 7, "do": "losses", "units": [["wait", 0]]})
        self.assertTrue(self.engine.waits.wait(10))
        self.assertEqual(frames.read(replies)[0], {"alive": 0.01})
        frames.write(requests, {"do": "cancel", "of": 7})
        while (head := frames.read(replies)[0]) == {"alive": 0.01}:
            pass
        self.assertEqual(head, {"id": 7, "error": {"code": "cancelled", "message": "cancelled"}})

    def test_a_program_that_goes_ends_its_request_and_the_next_is_served(self):
        stream, replies, requests = self.connect()
        frames.read(replies)
        frames.write(requests, *CALIBRATE)
        frames.write(requests, {"id": 7, "do": "losses", "units": [["wait", 0]]})
        self.assertTrue(self.engine.waits.wait(10))
        for end in (replies, requests, stream):
            end.close()
        _, replies, _ = self.connect()
        self.assertEqual(frames.read(replies)[0]["engine"], "scripted")
        self.assertEqual(self.engine.sets, {})


if __name__ == "__main__":
    unittest.main()
