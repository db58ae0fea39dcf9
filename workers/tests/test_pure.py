"""Patterns, kept states and arguments; needs nothing but Python."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from indexscope_worker import __main__ as command
from indexscope_worker.kept import Kept
from indexscope_worker.patterns import Route, branches, parse
from indexscope_worker.server import Refused


class Patterns(unittest.TestCase):
    def test_what_a_request_can_ask_for(self):
        has = [True, True, False]
        self.assertEqual(parse("FSS", has), Route(roles="FSS"))
        self.assertEqual(parse("dense", has), Route())
        self.assertEqual(parse({"window": 3}, has), Route(window=3))
        self.assertFalse(parse("dense", has).selects)

    def test_what_is_no_pattern_is_refused(self):
        for wrong in ("", "FS", "FSSS", "SFS", "FXS", "FFF", {"window": 0}, {"window": True}, {"w": 1}, 3, None):
            with self.assertRaises(Refused) as refused:
                parse(wrong, [True, True, False])
            self.assertEqual(refused.exception.code, "bad_pattern", wrong)

    def test_depths_where_later_units_leave_a_pattern(self):
        units = [("FFFF", 0), ("FFSS", 0), ("dense", 0), ("FSSS", 1), ("FFFF", 0), ({"window": 1}, 0)]
        self.assertEqual([branches(units, at) for at in range(6)], [{2, 4}, {2}, set(), set(), set(), set()])


class States(unittest.TestCase):
    def test_what_is_needed_comes_first(self):
        kept = Kept(10)
        kept.put(("a", 0), "first", 4, False)
        kept.put(("a", 1), "second", 4, False)
        kept.put(("a", 2), "no room", 4, False)
        self.assertEqual((len(kept), kept.bytes), (2, 8))
        kept.get(("a", 0))
        kept.put(("a", 3), "needed", 4, True)
        self.assertEqual([kept.get(("a", n)) for n in range(4)], ["first", None, None, "needed"])
        kept.put(("a", 4), "larger than everything", 11, True)
        self.assertEqual((len(kept), kept.bytes), (2, 8))
        kept.put(("a", 3), "again", 4, True)
        self.assertEqual(kept.bytes, 8)

    def test_a_set_is_forgotten(self):
        kept = Kept(10)
        kept.put(("a", 0), 1, 4, False)
        kept.put(("b", 0), 2, 4, False)
        kept.drop("a")
        self.assertEqual((kept.get(("a", 0)), kept.get(("b", 0)), kept.bytes), (None, 2, 4))


class Arguments(unittest.TestCase):
    def test_versions_are_numbers(self):
        self.assertLess(command.version("5.9.1"), command.version("5.23.0"))
        self.assertEqual(command.version("2.15.0+cu132"), (2, 15))
        self.assertEqual(command.version("3.0rc1"), (3, 1))

    def test_workers_of_one_machine_take_different_devices(self):
        self.assertEqual([command.devices_of(str(n), 2, None) for n in range(2)], ["0,1", "2,3"])
        self.assertEqual(command.devices_of("1", 1, "4,6"), "6")

    def test_what_does_not_fit_is_refused(self):
        self.assertEqual(command.parse(["m", "--tp"]).model, "m")
        for words in ([], ["m", "--cpu-memory", "1GB"]):
            with self.assertRaises(SystemExit):
                command.parse(words)


if __name__ == "__main__":
    unittest.main()
