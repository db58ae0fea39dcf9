"""Frames of the worker protocol: a JSON object on one line, and raw bytes where it announces some."""

from __future__ import annotations

import json
from typing import Any, BinaryIO

Head = dict[str, Any]


def read(stream: BinaryIO) -> tuple[Head, bytes] | None:
    """Reads a frame; None at the end of the stream."""
    line = stream.readline()
    if not line:
        return None
    head = json.loads(line)
    if not isinstance(head, dict):
        raise ValueError(f"a frame is a JSON object, not {type(head).__name__}")
    count = head.get("bytes", 0)
    body = stream.read(count)
    if len(body) < count:
        raise EOFError(f"a frame announces {count} bytes and has {len(body)}")
    return head, body


def write(stream: BinaryIO, head: Head, body: bytes = b"") -> None:
    """Writes a frame and flushes."""
    if body:
        head = {**head, "bytes": len(body)}
    stream.write(json.dumps(head).encode() + b"\n" + body)
    stream.flush()
