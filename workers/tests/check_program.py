"""Runs the program on workers: subcommands, a pool, a lost worker, pictures. See check_transformers.sh."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from check_transformers import LOSS, Fixture
from client import PACKAGE

#: Text of a search: so many sequences of so many tokens, drawn at random.
DATA = ["--tokens", "random:1280", "--seq-len", "128", "--sequences", "8"]


def run(*command: str, **options) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return done.stdout


def workers_of(parent: int) -> list[int]:
    """Returns the processes of workers that a process has started."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            status, words = (process / "stat").read_text(), (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        # The name in parentheses may hold spaces.
        if int(status.rpartition(")")[2].split()[1]) == parent and b"indexscope_worker" in words:
            found.append(int(process.name))
    return sorted(found)


def journal(session: Path, *without: int) -> list[str]:
    """Returns the lines of a search's journal without some words, and without the checksum over the line."""
    lines = session.with_suffix(".journal").read_text().splitlines()
    words = [line.split(" #")[0].split(" ") for line in lines]
    return [" ".join(words[0])] + [" ".join(w for n, w in enumerate(line) if n not in without) for line in words[1:]]


class Program:
    def __init__(self, binary: str, python: str, folder: Path) -> None:
        self.binary, self.folder = binary, folder
        self.worker = ["--worker", "transformers", "--python", python]

    def evaluate(self, model: str, data: list[str], patterns: list[str], *options: str) -> list[dict]:
        asked = [word for pattern in patterns for word in ("--pattern", pattern)]
        return json.loads(run(self.binary, "eval", model, *data, *asked, "--json", "--quiet", *options))["results"]

    def search(self, model: str, name: str, *options: str, kill_after: int | None = None) -> tuple[dict, str]:
        """Searches; with `kill_after`, kills one worker once so many lines are in the journal."""
        session = self.folder / f"{name}.toml"
        asked = ["search", model, *DATA, "--keep", "3", "--method", "greedy", "--session", str(session), "--json"]
        process = subprocess.Popen(
            [self.binary, *asked, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        killed = None
        while kill_after is not None and killed is None and process.poll() is None:
            path = session.with_suffix(".journal")
            if path.exists() and len(path.read_text().splitlines()) > kill_after:
                killed = workers_of(process.pid)[0]
                os.kill(killed, signal.SIGKILL)
            time.sleep(0.005)
        out, log = process.communicate()
        if process.returncode or (kill_after is not None and killed is None):
            sys.exit(f"search {name} ended with {process.returncode}\n{log}")
        return json.loads(out), log


def main() -> None:
    binary, python, *folders = sys.argv[1:]
    pictures = Path(os.environ.get("PICTURES", tempfile.mkdtemp(prefix="indexscope-pictures-")))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        program = Program(binary, python, folder)
        for model in folders:
            fixture = Fixture(Path(model))
            tokens = folder / "tokens.json"
            tokens.write_text(json.dumps([[int(token) for token in fixture.ids[0]]]))
            for name, options in (("", []), (", --tp 2", ["--tp", "2"]), (", --parallel 2", ["--parallel", "2"])):
                results = program.evaluate(
                    model, ["--tokens", str(tokens)], fixture.patterns, *program.worker, *options
                )
                wanted = [fixture.expected["patterns"][pattern]["loss"] for pattern in fixture.patterns]
                worst = max(abs(r["loss"] - loss) for r, loss in zip(results, wanted, strict=True))
                assert worst <= LOSS, f"eval{name}: a loss differs by {worst}"
                print(f"eval {Path(model).name}{name}: {len(results)} losses within {worst:.1e}", flush=True)
            here, there = folder / "here.safetensors", folder / "there.safetensors"
            run(binary, "record", model, "--tokens", str(tokens), "--out", str(here), "--quiet")
            run(binary, "record", model, "--tokens", str(tokens), "--out", str(there), "--quiet", *program.worker)
            matrices = [json.loads(run(binary, "overlap", str(trace), "--json"))["matrix"] for trace in (here, there)]
            assert np.array_equal(*matrices), "the overlap of sets recorded here and there"
            print(f"record and overlap {Path(model).name}: matrices of {len(matrices[0])} layers equal", flush=True)
        model = folders[0]
        one, _ = program.search(model, "one", *program.worker)
        two, _ = program.search(model, "two", *program.worker, "--parallel", "2")
        lost, log = program.search(model, "lost", *program.worker, "--parallel", "2", kill_after=20)
        for other, name in ((two, "two workers"), (lost, "two workers, of which one is killed")):
            for key in ("pattern", "order", "evaluations"):
                # What the search found; its cost is that of the workers.
                ours, theirs = (
                    [{k: v for k, v in step.items() if not k.startswith(("layer_f", "sec"))} for step in found[key]]
                    if key == "order"
                    else found[key]
                    for found in (one, other)
                )
                assert ours == theirs, f"{name}: {key} is {theirs} in place of {ours}"
        assert "take over" in log, log
        layers, seconds = 3, 4
        one_worker, two_workers = (journal(folder / f"{name}.toml", seconds) for name in ("one", "two"))
        assert one_worker == two_workers, "the journal of two workers is that of one"
        # Another worker runs layers again that the lost one had cached; nothing else differs.
        one_worker, after_a_loss = (journal(folder / f"{name}.toml", layers, seconds) for name in ("one", "lost"))
        assert one_worker == after_a_loss, "the journal after a lost worker is that of one"
        print(
            f"search: {one['pattern']}, {len(one_worker) - 1} units; two workers find and journal the same, also when "
            "one is killed in mid-search",
            flush=True,
        )
        patterns = ["FFFFFF", "FSFSFS", "FFSSSS", "FSSSFS", "FSSSSS", "FFFSSS"]
        each = [
            sum(r["seconds"] for r in program.evaluate(model, DATA[:4], patterns, *options))
            / (10 * len(patterns))
            * 1e3
            for options in ([], program.worker)
        ]
        lines = (folder / "one.journal").read_text().splitlines()[1:]
        own = np.median([float(line.split(" ")[4]) for line in lines]) * 1e3
        print(
            f"per unit of 128 tokens: {each[0]:.1f} ms in this process, {each[1]:.1f} ms in a worker, "
            f"of which the worker itself takes {own:.1f} ms (median)",
            flush=True,
        )
        door = folder / "socket"
        listener = subprocess.Popen(
            [python, "-m", "indexscope_worker", model, "--listen", str(door)], stderr=subprocess.PIPE
        )
        try:
            while b"listens" not in listener.stderr.readline():
                assert listener.poll() is None
            began = time.perf_counter()
            for _ in range(2):
                program.evaluate(model, DATA[:4], patterns[:2], "--worker", f"unix:{door}")
            print(f"unix socket: two programs one after the other in {time.perf_counter() - began:.1f} s", flush=True)
        finally:
            listener.terminate()
            listener.wait()
        pictures.mkdir(parents=True, exist_ok=True)
        for name, keys in (("overlap", ""), ("tokens", "2"), ("history", "4")):
            file = pictures / f"worker-{name}.svg"
            run(binary, model, *DATA[:4], *program.worker, "--picture", str(file), "--keys", keys, "--size", "140x44")
            assert file.stat().st_size > 1000
        print(f"dashboard: pictures in {pictures}", flush=True)


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = str(PACKAGE)
    main()
