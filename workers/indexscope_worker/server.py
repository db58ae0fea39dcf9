"""Answers requests, one after the other; a cancel is heard while another request runs."""

from __future__ import annotations

import queue
import sys
import threading
import time
import traceback
from typing import Any, BinaryIO, Protocol

from . import PROTOCOL, frames


class Cancelled(Exception):
    """Nobody waits for the request any more."""


class Refused(Exception):
    """The request cannot be answered; `code` is one of the protocol's."""

    def __init__(self, code: str, message: str, hint: str | None = None):
        super().__init__(message)
        self.code, self.hint = code, hint


class Engine(Protocol):
    """What owns the model."""

    def describe(self) -> dict[str, Any]:
        """Returns the fields of the hello."""

    def calibrate(self, name: str, sequences: list[list[int]]) -> None:
        """Takes a calibration set."""

    def losses(self, name: str, pattern: str, sequence: int, resume: bool, check) -> tuple[bytes, int]:
        """Returns -log p of every token but the first, f32, and how many layers ran; `check` raises Cancelled."""

    def record(self, name: str, pattern: str, sequence: int, shadow: bool, check):
        """Yields (layer, own, shape, i32 bytes) of every layer that selects."""


class Ranks:
    """Keeps the processes of one model together: rank 0 reads, everybody hears the same."""

    def __init__(self) -> None:
        try:
            import torch.distributed as dist

            self.dist = dist if dist.is_available() and dist.is_initialized() else None
        except ImportError:
            self.dist = None
        # Idle ranks wait in a collective: a group of its own with a time-out of days, fed with keep-alives.
        self.group = None
        if self.dist is not None:
            from datetime import timedelta

            self.group = self.dist.new_group(backend="gloo", timeout=timedelta(days=7))

    def leads(self) -> bool:
        return self.dist is None or self.dist.get_rank() == 0

    def share(self, value: Any) -> Any:
        if self.dist is None:
            return value
        box = [value]
        self.dist.broadcast_object_list(box, src=0, group=self.group)
        return box[0]


class Listener:
    """Reads requests in a thread of its own, so that a cancel is seen at once."""

    def __init__(self, stream: BinaryIO) -> None:
        self.requests: queue.Queue[tuple[dict[str, Any], bytes]] = queue.Queue()
        self.cancelled: set[int] = set()
        self.stream = stream

    def start(self) -> None:
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            while (frame := frames.read(self.stream)) is not None:
                head, body = frame
                if head.get("do") == "cancel":
                    self.cancelled.add(head.get("of", 0))
                else:
                    self.requests.put((head, body))
        except (ValueError, EOFError) as error:
            print(f"indexscope-worker: {error}", file=sys.stderr)
        self.requests.put(({"do": "shutdown", "id": 0}, b""))


def serve(engine: Engine, requests: BinaryIO, replies: BinaryIO) -> None:
    """Says hello and answers until the input ends."""
    ranks, listener = Ranks(), Listener(requests)
    if ranks.leads():
        listener.start()

    def send(head: dict[str, Any], body: bytes = b"") -> None:
        if ranks.leads():
            frames.write(replies, head, body)

    send({"hello": "indexscope-worker", "protocol": [PROTOCOL, PROTOCOL], **engine.describe()})
    while True:
        head, body = ranks.share(listener.requests.get() if ranks.leads() else None)
        if head.get("do") == "shutdown":
            return
        number = head.get("id", 0)

        def check(number: int = number) -> None:
            if ranks.share(number in listener.cancelled):
                raise Cancelled

        try:
            answer(engine, head, body, check, send)
            send({"id": number, "done": True})
        except Cancelled:
            send({"id": number, "error": {"code": "cancelled", "message": "cancelled"}})
        except Refused as refused:
            send({"id": number, "error": {"code": refused.code, "message": str(refused), "hint": refused.hint}})
        except Exception as error:  # a request that fails must not end the worker
            traceback.print_exc()
            code = "out_of_memory" if "out of memory" in str(error).lower() else "failed"
            send({"id": number, "error": {"code": code, "message": f"{type(error).__name__}: {error}"}})


def answer(engine: Engine, head: dict[str, Any], body: bytes, check, send) -> None:
    """Answers one request with everything but its terminal reply."""
    number, do, name = head["id"], head.get("do"), head.get("set", "main")
    if do == "calibrate":
        ids = memoryview(body).cast("i") if sys.byteorder == "little" else []
        sequences, start = [], 0
        for length in head["lengths"]:
            sequences.append(list(ids[start : start + length]))
            start += length
        if start != len(ids):
            raise Refused("failed", f"the set has {len(ids)} ids, but its lengths add up to {start}")
        engine.calibrate(name, sequences)
    elif do == "losses":
        for pattern, sequence in head["units"]:
            check()
            began = time.perf_counter()
            nll, layers = engine.losses(name, pattern, sequence, head.get("resume", True), check)
            reply = {"id": number, "unit": [pattern, sequence], "layers": layers, "dtype": "f32"}
            send({**reply, "seconds": time.perf_counter() - began}, nll)
    elif do == "record":
        for sequence in head["sequences"]:
            for layer, own, shape, sets in engine.record(name, head["pattern"], sequence, head.get("shadow", False), check):
                reply = {"id": number, "sequence": sequence, "layer": layer, "shape": shape, "dtype": "i32"}
                send({**reply, "own": True} if own else reply, sets)
    else:
        raise Refused("unsupported", f"this worker does not know '{do}'")
