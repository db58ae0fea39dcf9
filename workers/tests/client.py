"""A program's side of the protocol, for checks."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

Reply = tuple[dict[str, Any], bytes]
PACKAGE = Path(__file__).resolve().parents[1]


class Worker:
    """A worker started by its command."""

    def __init__(self, command: list[str]) -> None:
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log)
        self.number = 0
        self.hello = self.read()[0]

    def read(self) -> Reply:
        """Reads the next frame that is no sign of life."""
        while True:
            line = self.process.stdout.readline()
            if not line:
                self.log.seek(0)
                raise SystemExit(f"the worker ended with {self.process.wait()}:\n{self.log.read()[-3000:]}")
            head = json.loads(line)
            body = self.process.stdout.read(head.get("bytes", 0))
            if "alive" not in head or "hello" in head:
                return head, body

    def send(self, do: str, body: bytes = b"", **fields: Any) -> int:
        """Sends a request and returns its number."""
        self.number += 1
        head = {"id": self.number, "do": do, **fields} | ({"bytes": len(body)} if body else {})
        self.process.stdin.write(json.dumps(head).encode() + b"\n" + body)
        self.process.stdin.flush()
        return self.number

    def ask(self, do: str, body: bytes = b"", **fields: Any) -> list[Reply]:
        """Sends a request and returns its replies; the last is terminal."""
        number, replies = self.send(do, body, **fields), []
        while True:
            replies.append(self.read())
            head = replies[-1][0]
            assert head["id"] == number, head
            if "error" in head or head.get("done"):
                return replies

    def answers(self, do: str, body: bytes = b"", **fields: Any) -> list[Reply]:
        """As `ask`, without the terminal reply; an error ends the check."""
        *replies, (last, _) = self.ask(do, body, **fields)
        if "error" in last:
            raise SystemExit(f"{do}: {last['error']}")
        return replies

    def end(self) -> int:
        """Closes the input and returns the worker's exit status."""
        self.process.stdin.close()
        return self.process.wait(60)
