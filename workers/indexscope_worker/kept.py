"""States kept between forwards, within a budget of bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """Keeps values whose sizes add up to at most `budget` bytes.

    What a later unit of the same request needs is kept first, in place of what was used longest ago; anything else only
    takes room that is free.
    """

    def __init__(self, budget: int) -> None:
        self.budget, self.bytes = budget, 0
        self._values: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Hashable) -> Value | None:
        """Returns a value; None where there is none."""
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key][0]

    def put(self, key: Hashable, value: Value, size: int, needed: bool) -> None:
        """Keeps a value if there is room, or makes room if it is needed."""
        if key in self._values:
            self._values.move_to_end(key)
            return
        while needed and self._values and self.bytes + size > self.budget >= size:
            _, (_, freed) = self._values.popitem(last=False)
            self.bytes -= freed
        if self.bytes + size <= self.budget:
            self._values[key] = (value, size)
            self.bytes += size

    def drop(self, of: Hashable) -> None:
        """Forgets the values whose keys are tuples that start with `of`."""
        for key in [key for key in self._values if isinstance(key, tuple) and key[0] == of]:
            self.bytes -= self._values.pop(key)[1]
