"""Holds the worker against expected losses, index sets and logits of fixtures. See check_transformers.sh."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from client import PACKAGE, Worker
from safetensors.numpy import load_file

#: Largest difference of a mean loss, and of a single one, nats.
LOSS, TOKEN = 1e-5, 2e-4
#: Seconds that a cancel may take beyond the layer that runs.
CANCEL = 0.1


def log_softmax(logits):
    logits = logits.astype("f8")
    return (
        logits
        - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
        - logits.max(-1, keepdims=True)
    )


class Fixture:
    """A checkpoint, its sequences and what is expected of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.expected = json.loads((folder / "expected.json").read_text())
        self.tensors = load_file(folder / "expected.safetensors")
        self.patterns = list(self.expected["patterns"])
        self.prefixes = [prefix for prefix in ("", "short_", "second_") if f"{prefix}input_ids" in self.tensors]
        self.ids = [self.tensors[f"{prefix}input_ids"][0] for prefix in self.prefixes]

    def logp(self, pattern: str, sequence: int):
        logits = self.tensors[f"{self.prefixes[sequence]}logits.{pattern}"]
        return log_softmax(logits.reshape(-1, logits.shape[-1])[: len(self.ids[sequence]) - 1])

    def sets(self, pattern: str, sequence: int):
        """Returns the expected sets per layer, ascending and padded with -1; None where there are none."""
        sets = self.tensors.get(f"{self.prefixes[sequence]}topk.{pattern}")
        full = self.expected["patterns"][pattern]["full_layers"]
        if sets is None:
            return None
        return [np.sort(sets[full.index(max(f for f in full if f <= layer))], -1) for layer in range(len(pattern))]


def ascending(sets):
    """Puts the padding of sets first, as sorting does."""
    return np.sort(sets, -1)


def calibrate(worker: Worker, sequences, name: str = "main") -> None:
    body = np.concatenate(sequences).astype("<i4").tobytes()
    worker.answers("calibrate", body, set=name, lengths=[len(ids) for ids in sequences])


def check_losses(worker: Worker, fixture: Fixture) -> tuple[float, float, float, int]:
    """Returns the largest differences of a mean loss, of a single one, of a KL, and how many losses were compared."""
    reference, worst, compared = fixture.patterns[0], [0.0, 0.0, 0.0], 0
    units = [[pattern, n] for n in range(len(fixture.ids)) for pattern in fixture.patterns]
    bodies = []
    for resume in (False, True, True):
        replies = worker.answers("losses", units=units, resume=resume, top1=True, kl=reference)
        bodies.append([body for _, body in replies])
        for head, body in replies:
            pattern, n = head["unit"]
            count = len(fixture.ids[n]) - 1
            nll, top1, kl = (
                np.frombuffer(body[4 * count * i : 4 * count * (i + 1)], kind)
                for i, kind in enumerate(("<f4", "<i4", "<f4"))
            )
            logp, before = fixture.logp(pattern, n), fixture.logp(reference, n)
            wanted = -logp[np.arange(count), fixture.ids[n][1:]]
            differences = (
                abs(nll.astype("f8").mean() - fixture.expected["patterns"][pattern][f"{fixture.prefixes[n]}loss"]),
                abs(nll - wanted).max(),
                abs(kl - (np.exp(before) * (before - logp)).sum(-1)).max(),
            )
            worst = [max(pair) for pair in zip(worst, differences, strict=True)]
            gap = np.sort(logp, -1)[:, -1] - np.sort(logp, -1)[:, -2]
            assert (top1 == logp.argmax(-1))[gap > TOKEN].all(), f"top-1 tokens of {pattern} on sequence {n}"
            compared += 1
    assert bodies[0] == bodies[1] == bodies[2], "a forward that resumes must give the same bits"
    return *worst, compared


def check_sets(worker: Worker, fixture: Fixture) -> int:
    """Returns how many sets of a layer were compared."""
    compared = 0
    for pattern in fixture.patterns:
        sequences = [n for n in range(len(fixture.ids)) if fixture.sets(pattern, n) is not None]
        for head, body in worker.answers("record", pattern=pattern, sequences=sequences, queries="all"):
            found = ascending(np.frombuffer(body, "<i4").reshape(head["shape"])[:, 0])
            same = (found == ascending(fixture.sets(pattern, head["sequence"])[head["layer"]])).all()
            assert same, f"sets of layer {head['layer']} under {pattern} on sequence {head['sequence']} differ"
            compared += 1
    return compared


def check_controls(worker: Worker, fixture: Fixture) -> None:
    """Checks dense attention, windows, shadow and the greedy continuation against one another."""
    pattern, length, k = fixture.patterns[-1], len(fixture.ids[0]), worker.hello["index_topk"]
    units = [["dense", 0], [{"window": length}, 0], [{"window": 2 * length}, 0], [{"window": 1}, 0]]
    dense, same, longer, one = (np.frombuffer(body, "<f4") for _, body in worker.answers("losses", units=units))
    assert (dense == same).all() and (dense == longer).all(), "a window over everything is dense attention"
    assert abs(dense - one).max() > 1e-3, "a window of one key must change losses"
    under = np.frombuffer(worker.answers("losses", units=[[pattern, 0]])[0][1], "<f4")
    assert abs(under[: k - 1] - dense[: k - 1]).max() <= TOKEN, "queries that see k keys at most cannot change"
    own = [
        head["layer"]
        for head, _ in worker.answers("record", pattern=pattern, sequences=[0], shadow=True)
        if head.get("own")
    ]
    locked = worker.hello["locked_shared"]
    assert own == [n for n, role in enumerate(pattern) if role == "S" and n not in locked], own
    tokens = 8
    for what in (pattern, "dense", {"window": k}):
        body = worker.answers("decode", pattern=what, sequences=[0], tokens=tokens)[0][1]
        continued = np.concatenate([fixture.ids[0], np.frombuffer(body, "<i4")])
        calibrate(worker, [continued], "continued")
        body = worker.answers("losses", set="continued", units=[[what, 0]], top1=True)[0][1]
        top1 = np.frombuffer(body, "<i4")[len(continued) - 1 :]
        assert (top1[-tokens:] == continued[-tokens:]).all(), f"greedy continuation under {what}"


def check_cancel(worker: Worker, fixture: Fixture) -> tuple[float, float]:
    """Returns the seconds until a cancel was answered, the longest of 5, and those of a layer."""
    longest, layer = 0.0, 0.0
    for _ in range(5):
        number = worker.send("losses", units=[[fixture.patterns[0], 0]] * 4000, resume=False)
        for _ in range(3):
            layer = max(layer, worker.read()[0]["seconds"] / len(fixture.patterns[0]))
        worker.number += 1
        began = time.perf_counter()
        worker.process.stdin.write(json.dumps({"do": "cancel", "of": number}).encode() + b"\n")
        worker.process.stdin.flush()
        while "error" not in (head := worker.read()[0]):
            assert not head.get("done"), "the cancel came too late to say anything"
        assert head["error"]["code"] == "cancelled", head
        longest = max(longest, time.perf_counter() - began)
    assert longest <= layer + CANCEL, f"a cancel took {longest * 1e3:.0f} ms"
    return longest, layer


def check_errors(worker: Worker) -> None:
    """Checks that what cannot be answered is refused with its code, and the next request answered."""
    for fields, code in (
        ({"do": "dance"}, "unsupported"),
        ({"do": "losses", "units": [["FX", 0]]}, "bad_pattern"),
        ({"do": "losses", "units": [[{"window": 0}, 0]]}, "bad_pattern"),
        ({"do": "losses", "units": [["dense", 99]]}, "failed"),
        ({"do": "record", "pattern": "dense", "sequences": [0]}, "bad_pattern"),
        ({"do": "measure", "patterns": []}, "unsupported"),
    ):
        head = worker.ask(**fields)[-1][0]
        assert head["error"]["code"] == code, head


def main() -> None:
    python, *folders = sys.argv[1:]
    os.environ["PYTHONPATH"] = str(PACKAGE)
    module = [python, "-m", "indexscope_worker"]
    torchrun = [python, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "indexscope_worker"]
    ways = (
        ("one process", module, []),
        ("indexer in pieces", module, ["--index-bytes", "16384", "--keep", "300000"]),
        ("2 ranks, gloo", torchrun, ["--tp"]),
        ("device map, disk", module, ["--device-map", "auto", "--cpu-memory", "200KB"]),
    )
    only = os.environ.get("ONLY")
    row = "{:<18} {:<18} {:>7} {:>9} {:>9} {:>9} {:>5} {:>9} {:>8}".format
    print(row("fixture", "worker", "losses", "|d loss|", "|d token|", "|d KL|", "sets", "cancel ms", "layer ms"))
    for folder in map(Path, folders):
        fixture = Fixture(folder)
        for name, command, options in ways:
            if only and only not in name:
                continue
            worker = Worker([*command, str(folder), *options])
            calibrate(worker, fixture.ids)
            if name == "device map, disk":
                assert "disk" in worker.hello["devices"], worker.hello["devices"]
            assert worker.hello["ranks"] == (2 if "ranks" in name else 1)
            loss, token, kl, losses = check_losses(worker, fixture)
            sets = check_sets(worker, fixture)
            check_controls(worker, fixture)
            check_errors(worker)
            cancel, layer = check_cancel(worker, fixture)
            assert worker.end() == 0
            print(
                row(
                    folder.name,
                    name,
                    losses,
                    f"{loss:.1e}",
                    f"{token:.1e}",
                    f"{kl:.1e}",
                    sets,
                    f"{cancel * 1e3:.1f}",
                    f"{layer * 1e3:.1f}",
                ),
                flush=True,
            )
            if loss > LOSS or token > TOKEN or kl > TOKEN:
                sys.exit(f"{folder.name}, {name}: a loss differs by more than {LOSS} (a single one or a KL: {TOKEN})")


if __name__ == "__main__":
    main()
