"""Compares eval and record through a worker with a checkpoint's expected values. See check_transformers.sh."""

import json
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

#: Largest difference of a loss, nats per token.
LOSS = 1e-5


def tensors(path):
    """Reads the i32 and i64 tensors of a safetensors file: name to (shape, values)."""
    data = Path(path).read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    kinds, found = {"I32": ("i", 4), "I64": ("q", 8)}, {}
    for name, info in header.items():
        if name != "__metadata__" and info["dtype"] in kinds:
            code, width = kinds[info["dtype"]]
            start, end = (8 + size + at for at in info["data_offsets"])
            found[name] = (info["shape"], struct.unpack(f"<{(end - start) // width}{code}", data[start:end]))
    return found


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr}")
    return done.stdout


def main():
    binary, python, *fixtures = sys.argv[1:]
    worst = 0.0
    for fixture in map(Path, fixtures):
        expected = json.loads((fixture / "expected.json").read_text())
        ids = tensors(fixture / "expected.safetensors")["input_ids"][1]
        with tempfile.TemporaryDirectory() as folder:
            tokens = Path(folder) / "tokens.json"
            tokens.write_text(json.dumps([list(ids)]))
            worker = ["--worker", "transformers", "--python", python]
            for way, extra in (("one process", []), ("two ranks", ["--tp", "2"]), ("device map", ["--device-map", "auto"])):
                patterns = [word for pattern in expected["patterns"] for word in ("--pattern", pattern)]
                out = run(binary, "eval", fixture, "--tokens", tokens, *patterns, "--json", *worker, *extra)
                for result in json.loads(out)["results"]:
                    difference = abs(result["loss"] - expected["patterns"][result["pattern"]]["loss"])
                    worst = max(worst, difference)
                    if difference > LOSS:
                        sys.exit(f"{fixture.name}, {way}: {result['pattern']} has loss {result['loss']}")
                trace, local = Path(folder) / "worker.safetensors", Path(folder) / "local.safetensors"
                run(binary, "record", fixture, "--tokens", tokens, "--out", trace, *worker, *extra)
                run(binary, "record", fixture, "--tokens", tokens, "--out", local)
                sets = {name: found for name, found in tensors(trace).items() if name.startswith("layer.")}
                here = tensors(local)
                different = [name for name, found in sets.items() if found != here[name]]
                if not sets or different:
                    sys.exit(f"{fixture.name}, {way}: sets differ from those of this program: {different}")
                print(f"{fixture.name}, {way}: {len(expected['patterns'])} losses, sets of {len(sets)} layers equal")
    print(f"largest difference of a loss: {worst:.1e} nats")


if __name__ == "__main__":
    main()
