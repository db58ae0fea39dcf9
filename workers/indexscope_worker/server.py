"""Answers requests, one after the other; a cancel is heard while another request runs."""

from __future__ import annotations

import array
import queue
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Protocol

from . import PROTOCOL, frames

#: Seconds between two signs of life.
ALIVE = 10.0
#: Seconds after which idle ranks hear from rank 0.
IDLE = 60.0

Check = Callable[[], None]
Send = Callable[..., None]


class Cancelled(Exception):
    """Nobody waits for the request any more."""


class Refused(Exception):
    """The request cannot be answered; `code` is one of the protocol's."""

    def __init__(self, code: str, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.code, self.hint = code, hint


class Engine(Protocol):
    """What owns the model. `check` raises Cancelled once nobody waits for the answer."""

    def describe(self) -> dict[str, Any]:
        """Returns the fields of the hello."""

    def calibrate(self, name: str, sequences: list[list[int]]) -> None:
        """Takes a calibration set, and forgets what was kept of one of that name."""

    def forget(self) -> None:
        """Forgets every calibration set."""

    def losses(self, name: str, units: list[tuple[Any, int]], at: int, options: dict[str, Any], check: Check) -> Loss:
        """Measures unit `at` of a request."""

    def record(
        self, name: str, pattern: Any, sequence: int, shadow: bool, check: Check
    ) -> Iterator[tuple[int, bool, list[int], bytes]]:
        """Yields (layer, own, shape, i32 bytes) of every layer that selects."""

    def decode(self, name: str, pattern: Any, sequence: int, tokens: int, check: Check) -> bytes:
        """Returns a greedy continuation, i32."""

    def memory(self) -> tuple[int, int] | None:
        """Returns free bytes and bytes in all of the devices; None where they have no memory of their own."""


class Loss:
    """What was measured for a unit."""

    def __init__(self, nll: bytes, layers: int, top1: bytes | None = None, kl: bytes | None = None) -> None:
        #: -log p of every token but the first, f32; the most likely token of each, i32; KL to the reference, f32.
        self.nll, self.top1, self.kl = nll, top1, kl
        #: Layers that were run.
        self.layers = layers

    def frame(self) -> tuple[dict[str, Any], bytes]:
        """Returns the fields that say what follows, and the bytes."""
        head: dict[str, Any] = {"layers": self.layers, "dtype": "f32"}
        head.update({key: True for key in ("top1", "kl") if getattr(self, key) is not None})
        return head, self.nll + (self.top1 or b"") + (self.kl or b"")


class Ranks:
    """Keeps the processes of one model together: rank 0 reads, everybody hears the same."""

    def __init__(self) -> None:
        self.dist: Any = None
        try:
            import torch.distributed as dist

            self.dist = dist if dist.is_available() and dist.is_initialized() else None
        except ImportError:
            pass
        # Idle ranks wait in a collective of a group of its own, whose time-out is far beyond the keep-alives.
        self.group: Any = None
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

    def next(self) -> tuple[dict[str, Any], bytes]:
        """Returns the next request, or a keep-alive for idle ranks."""
        try:
            return self.requests.get(timeout=IDLE)
        except queue.Empty:
            return {"do": "idle"}, b""

    def _read(self) -> None:
        try:
            while (frame := frames.read(self.stream)) is not None:
                head, body = frame
                if head.get("do") == "cancel":
                    self.cancelled.add(head.get("of", 0))
                else:
                    self.requests.put((head, body))
        except (ValueError, EOFError, OSError) as error:
            print(f"indexscope-worker: {error}", file=sys.stderr)
        self.requests.put(({"do": "shutdown", "id": 0}, b""))


class Speaker:
    """Writes replies; from a thread of its own it gives signs of life, so that a worker that hangs is noticed."""

    def __init__(self, stream: BinaryIO, leads: bool, alive: float) -> None:
        self.stream, self.leads, self.alive = stream, leads, alive
        self.lock, self.ended = threading.Lock(), threading.Event()
        #: Whether nobody reads replies any more.
        self.gone = False

    def send(self, head: dict[str, Any], body: bytes = b"") -> None:
        if not self.leads or self.gone:
            return
        try:
            with self.lock:
                frames.write(self.stream, head, body)
        except (OSError, ValueError) as error:
            print(f"indexscope-worker: nobody reads replies any more ({error})", file=sys.stderr)
            self.gone = True

    def start(self) -> None:
        if self.leads and self.alive > 0:
            threading.Thread(target=self._live, daemon=True).start()

    def _live(self) -> None:
        while not self.ended.wait(self.alive) and not self.gone:
            self.send({"alive": self.alive})


def serve(engine: Engine, ranks: Ranks, requests: BinaryIO, replies: BinaryIO, alive: float = ALIVE) -> None:
    """Says hello and answers until the input ends, or the program that asks is gone."""
    listener, speaker = Listener(requests), Speaker(replies, ranks.leads(), alive)
    if ranks.leads():
        listener.start()
    hello = {"hello": "indexscope-worker", "protocol": [PROTOCOL, PROTOCOL], "alive": alive}
    speaker.send({**hello, **engine.describe()})
    speaker.start()
    try:
        while not ranks.share(speaker.gone):
            head, body = ranks.share(listener.next() if ranks.leads() else None)
            if head.get("do") == "shutdown":
                return
            if head.get("do") != "idle":
                answer_one(engine, ranks, head, body, listener, speaker)
    finally:
        speaker.ended.set()


def answer_one(
    engine: Engine, ranks: Ranks, head: dict[str, Any], body: bytes, listener: Listener, speaker: Speaker
) -> None:
    """Answers one request with exactly one terminal reply."""
    number = head.get("id", 0)

    def check() -> None:
        if ranks.share(number in listener.cancelled or speaker.gone):
            raise Cancelled

    def fail(code: str, message: str, hint: str | None = None) -> None:
        error = {"code": code, "message": message} | ({"hint": hint} if hint else {})
        speaker.send({"id": number, "error": error})

    try:
        done = answer(engine, head, body, check, speaker.send)
        speaker.send({"id": number, "done": True, **done})
    except Cancelled:
        fail("cancelled", "cancelled")
    except Refused as refused:
        fail(refused.code, str(refused), refused.hint)
    except Exception as error:  # a request that fails must not end the worker
        traceback.print_exc()
        code = "out_of_memory" if "out of memory" in str(error).lower() else "failed"
        fail(code, f"{type(error).__name__}: {error}")
    finally:
        listener.cancelled.discard(number)


def answer(engine: Engine, head: dict[str, Any], body: bytes, check: Check, send: Send) -> dict[str, Any]:
    """Answers one request with everything but its terminal reply, of which it returns the fields."""
    number, do, name = head["id"], head.get("do"), head.get("set", "main")
    if do == "calibrate":
        engine.calibrate(name, split(body, head["lengths"]))
    elif do == "losses":
        units = [(pattern, sequence) for pattern, sequence in head["units"]]
        for at, (pattern, sequence) in enumerate(units):
            check()
            began = time.perf_counter()
            loss = engine.losses(name, units, at, head, check)
            fields, values = loss.frame()
            seconds = time.perf_counter() - began
            send({"id": number, "unit": [pattern, sequence], "seconds": seconds, **fields}, values)
    elif do == "record":
        pattern, shadow = head["pattern"], head.get("shadow", False)
        for sequence in head["sequences"]:
            for layer, own, shape, sets in engine.record(name, pattern, sequence, shadow, check):
                reply = {"id": number, "sequence": sequence, "layer": layer, "shape": shape, "dtype": "i32"}
                send({**reply, "own": True} if own else reply, sets)
    elif do == "decode":
        for sequence in head["sequences"]:
            ids = engine.decode(name, head["pattern"], sequence, head["tokens"], check)
            send({"id": number, "sequence": sequence, "dtype": "i32"}, ids)
    elif do == "memory":
        memory = engine.memory()
        return {"free": memory[0], "total": memory[1]} if memory else {}
    else:
        raise Refused("unsupported", f"this worker does not know '{do}'")
    return {}


def split(body: bytes, lengths: list[int]) -> list[list[int]]:
    """Cuts the ids of a calibration set into its sequences."""
    ids = array.array("i", body)
    if sys.byteorder != "little":
        ids.byteswap()
    if sum(lengths) != len(ids) or any(length < 1 for length in lengths):
        raise Refused("failed", f"the set has {len(ids)} ids, but its lengths add up to {sum(lengths)}")
    sequences, start = [], 0
    for length in lengths:
        sequences.append(ids[start : start + length].tolist())
        start += length
    return sequences


def listen(engine: Engine, ranks: Ranks, path: str | None, alive: float = ALIVE) -> None:
    """Answers one program after the other at a Unix socket; only rank 0 needs the path."""
    door = open_socket(path) if ranks.leads() and path is not None else None
    if door is not None:
        print(f"indexscope-worker: listens at {path}", file=sys.stderr, flush=True)
    while True:
        stream = accept(door) if door is not None else None
        if not ranks.share(stream is not None):
            continue
        requests: Any = stream.makefile("rb") if stream is not None else None
        replies: Any = stream.makefile("wb") if stream is not None else None
        serve(engine, ranks, requests, replies, alive)
        engine.forget()
        if stream is not None:
            stream.close()


def open_socket(path: str) -> socket.socket:
    """Opens a Unix socket that only this user can connect to; one that nobody listens at is replaced."""
    import os
    import stat

    door = socket.socket(socket.AF_UNIX)
    if os.path.exists(path):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise SystemExit(f"'{path}' exists and is no socket")
        try:
            door.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        else:
            raise SystemExit(f"another worker listens at '{path}'")
    before = os.umask(0o177)
    try:
        door.bind(path)
    finally:
        os.umask(before)
    door.listen(1)
    door.settimeout(IDLE)
    return door


def accept(door: socket.socket) -> socket.socket | None:
    """Waits for a program; None after a while, so that idle ranks hear from rank 0."""
    try:
        stream, _ = door.accept()
    except TimeoutError:
        return None
    stream.settimeout(None)
    return stream
