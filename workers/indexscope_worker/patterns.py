"""What a request can ask for in place of a selection: letters per site, dense attention, or a window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .server import Refused


@dataclass(frozen=True)
class Route:
    """How the sites of a model select keys in one forward."""

    #: 'F' or 'S' per site; empty where no indexer selects.
    roles: str = ""
    #: Latest keys that each query sees; 0 stands for all.
    window: int = 0

    @property
    def selects(self) -> bool:
        """Whether indexers select."""
        return self.roles != ""


def parse(pattern: Any, has_indexer: Sequence[bool]) -> Route:
    """Reads letters, 'dense' or {"window": n} for a model whose sites have indexers or not."""
    if pattern == "dense":
        return Route()
    if isinstance(pattern, dict) and set(pattern) == {"window"}:
        window = pattern["window"]
        if type(window) is not int or window < 1:
            raise Refused("bad_pattern", f"a window has at least one key, not {window!r}")
        return Route(window=window)
    sites = len(has_indexer)
    if not isinstance(pattern, str) or len(pattern) != sites or set(pattern) - {"F", "S"} or pattern[0] != "F":
        raise Refused("bad_pattern", f"{pattern!r} is no pattern of {sites} sites that starts Full")
    for site, role in enumerate(pattern):
        if role == "F" and not has_indexer[site]:
            raise Refused("bad_pattern", f"site {site} is Full in {pattern!r}, but has no indexer")
    return Route(roles=pattern)


def common_prefix(a: str, b: str) -> int:
    """Returns how many letters two patterns start with alike."""
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def branches(units: Sequence[tuple[Any, int]], at: int) -> set[int]:
    """Returns the depths at which later units of a request leave the pattern of unit `at` on the same sequence."""
    pattern, sequence = units[at]
    later = (other for other, n in units[at + 1 :] if n == sequence and isinstance(other, str))
    return {common_prefix(pattern, other) for other in later} - {0} if isinstance(pattern, str) else set()
