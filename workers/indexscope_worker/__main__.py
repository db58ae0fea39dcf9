"""Serves a checkpoint to indexscope over standard input and output, or at a Unix socket."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys

#: Packages, the least versions that this was run with, and what each is for where not everybody needs it.
PACKAGES = (
    ("torch", "2.6", None),
    ("transformers", "5.23", None),
    ("safetensors", "0.4", None),
    ("accelerate", "1.0", "--device-map"),
)


def version(text: str) -> tuple[int, ...]:
    """Returns the first two numbers of a version such as '2.15.0+cu132'."""
    numbers = []
    for part in text.split("+")[0].split(".")[:2]:
        digits = "".join(c for c in part if c.isdigit())
        numbers.append(int(digits) if digits else 0)
    return tuple(numbers)


def check() -> int:
    """Prints what the environment has and lacks; returns 1 where something is missing that everybody needs."""
    status = 0
    for package, least, needed_for in PACKAGES:
        note = f"at least {least}" + (f", for {needed_for}" if needed_for else "")
        try:
            found = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            print(f"missing  {package} ({note})")
            status |= needed_for is None
            continue
        right = version(found) >= version(least)
        print(f"{'ok      ' if right else 'too old '} {package} {found} ({note})")
        status |= not right and needed_for is None
    try:
        import torch
    except ImportError:
        return 1
    except OSError as error:
        print(f"broken   torch: {error}")
        return 1
    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    print(f"ok       {devices} CUDA devices" if devices else "note     no CUDA device: the model runs on the CPU")
    return int(status)


def devices_of(slot: str, ranks: int, visible: str | None) -> str:
    """Returns the CUDA devices of one of several workers on a machine, each of `ranks` processes."""
    number = int(slot)
    if visible is None:
        return ",".join(str(device) for device in range(number * ranks, (number + 1) * ranks))
    return ",".join(visible.split(",")[number * ranks : (number + 1) * ranks])


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="indexscope-worker", description=__doc__)
    parser.add_argument("model", nargs="?", help="folder of a checkpoint of glm_moe_dsa or deepseek_v32")
    parser.add_argument("--check", action="store_true", help="print what the environment has and lacks, and end")
    parser.add_argument("--listen", metavar="PATH", help="serve at a Unix socket, one program after the other")
    parser.add_argument("--tp", action="store_true", help="split the model over the processes of torchrun")
    parser.add_argument("--device-map", help="place layers on devices, such as auto")
    parser.add_argument("--offload", metavar="DIR", help="folder for weights that fit nowhere else")
    parser.add_argument("--cpu-memory", help="most memory on the CPU with a device map, such as 64GiB")
    parser.add_argument("--dtype", default="auto", help="float32, bfloat16 or float16; auto: bfloat16 on CUDA devices")
    parser.add_argument("--keep", type=int, default=1 << 30, metavar="BYTES", help="states kept between forwards")
    parser.add_argument("--index-bytes", type=int, default=1 << 28, metavar="BYTES", help="most bytes of index scores")
    parser.add_argument("--alive", type=float, default=10.0, metavar="SECONDS", help="between two signs of life")
    parser.add_argument("--slot", help="number of this worker among several on one machine: picks its CUDA devices")
    args = parser.parse_args(words)
    if not args.check and args.model is None:
        parser.error("a checkpoint's folder is needed")
    if args.cpu_memory and not args.device_map:
        parser.error("--cpu-memory is of --device-map")
    return args


def main() -> None:
    args = parse()
    if args.check:
        sys.exit(check())
    # Nothing else may write into the stream of frames: libraries print to standard output.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    if args.slot is not None and not args.device_map:
        ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        os.environ["CUDA_VISIBLE_DEVICES"] = devices_of(args.slot, ranks, visible)
    import torch

    from .server import Ranks, listen, serve
    from .transformers_engine import TransformersEngine

    cuda = torch.cuda.is_available()
    if args.tp:
        torch.distributed.init_process_group(backend="nccl" if cuda else "gloo")
    engine = TransformersEngine(
        args.model,
        tp=args.tp,
        device_map=args.device_map,
        offload=args.offload,
        cpu_memory=args.cpu_memory,
        dtype=args.dtype if args.dtype != "auto" else "bfloat16" if cuda else "float32",
        keep_bytes=args.keep,
        index_bytes=args.index_bytes,
    )
    if args.listen:
        listen(engine, Ranks(), args.listen, args.alive)
    else:
        serve(engine, Ranks(), sys.stdin.buffer, replies, args.alive)


if __name__ == "__main__":
    main()
