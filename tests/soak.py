#!/usr/bin/env python3
"""Presses keys in the dashboard for a long time, and prints its memory, descriptors and threads.

    tests/soak.py [SECONDS]     600 by default; INDEXSCOPE names the program, target/debug/indexscope by default

Keys, pastes, clicks and resizes follow from a seed. Fails where the program ends by itself, or does not end by its own
keys afterwards. Needs Python 3 on Linux.
"""

import fcntl
import os
import pty
import random
import select
import signal
import struct
import sys
import tempfile
import termios
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = os.environ.get("INDEXSCOPE", str(ROOT / "target/debug/indexscope"))
# No q: it quits. No z with Ctrl: it suspends.
KEYS = list("123456789 fshjklujmnpotxcvgwyae?/.,+-[]<>HJKLGN") + [
    "\r", "\t", "\x1b", "\x1b[A", "\x1b[B", "\x1b[C", "\x1b[D", "\x1b[5~", "\x1b[6~", "\x1b[H", "\x1b[F",
    "\x1b[200~FSFSFS\x1b[201~", "\x1b[<0;30;10M\x1b[<0;30;10m", "\x1b[<64;20;8M", "\x1b[<65;20;8M",
]


def resize(master, rows, columns):
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def drain(master):
    """Reads what was drawn; returns False at the end."""
    try:
        while select.select([master], [], [], 0)[0]:
            if not os.read(master, 1 << 16):
                return False
    except OSError:
        return False
    return True


def figures(pid):
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0]) // 1024, len(os.listdir(f"/proc/{pid}/fd")), int(status["Threads"])


def main():
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 600.0
    chosen = random.Random(1)
    with tempfile.TemporaryDirectory() as folder:
        tokens = Path(folder) / "tokens.json"
        rows = [[(i * 37 + s * 11 + i * i * s) % 100 for i in range(96)] for s in range(4)]
        tokens.write_text(str(rows))
        pid, master = pty.fork()
        if pid == 0:
            model = str(ROOT / "tests/data/glm_dsa_tiny")
            environment = {"TERM": "xterm-256color", "HOME": folder, "LANG": "C.UTF-8"}
            arguments = [PROGRAM, model, "--tokens", str(tokens), "--sessions", folder]
            os.chdir(folder)
            os.execve(PROGRAM, arguments, environment)
        resize(master, 40, 120)
        begin = time.monotonic()
        told = 0.0
        keys = 0
        while (now := time.monotonic() - begin) < seconds:
            if now >= told:
                memory, descriptors, threads = figures(pid)
                print(f"{now:6.0f} s {keys:7} keys {memory:6} MiB {descriptors:4} descriptors {threads:4} threads", flush=True)
                told += max(seconds / 10, 1.0)
            if chosen.random() < 0.01:
                resize(master, chosen.randint(1, 60), chosen.randint(1, 200))
            os.write(master, chosen.choice(KEYS).encode())
            keys += 1
            time.sleep(0.01)
            if not drain(master):
                _, status = os.waitpid(pid, 0)
                sys.exit(f"the dashboard ended by itself after {keys} keys: status {status}")
        memory, descriptors, threads = figures(pid)
        print(f"{seconds:6.0f} s {keys:7} keys {memory:6} MiB {descriptors:4} descriptors {threads:4} threads")
        resize(master, 40, 120)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                os.write(master, b"\x1b\x1b")
                time.sleep(0.3)
                os.write(master, b"q")
            except OSError:
                pass
            time.sleep(0.5)
            drain(master)
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                if os.waitstatus_to_exitcode(status) != 0:
                    sys.exit(f"the dashboard ends with {os.waitstatus_to_exitcode(status)}")
                print("ended by q, exit code 0")
                return
        os.kill(pid, signal.SIGKILL)
        sys.exit("the dashboard does not end by q")


if __name__ == "__main__":
    main()
