"""python -m indexscope_worker MODEL: serves a checkpoint over standard input and output."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys


def check() -> int:
    """Prints what the environment has and lacks; 1 where something is missing."""
    missing = 0
    for package, least in (("torch", "2.6"), ("transformers", "5.23"), ("safetensors", "0.4")):
        try:
            found = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            print(f"missing  {package} (at least {least})")
            missing = 1
            continue
        numbers = [int(part) for part in found.split("+")[0].split(".")[:2]]
        right = numbers >= [int(part) for part in least.split(".")]
        print(f"{'ok      ' if right else 'too old '} {package} {found} (at least {least})")
        missing |= 0 if right else 1
    return missing


def main() -> None:
    parser = argparse.ArgumentParser(prog="indexscope-worker", description=__doc__)
    parser.add_argument("model", nargs="?", help="folder of a checkpoint of glm_moe_dsa or deepseek_v32")
    parser.add_argument("--check", action="store_true", help="print what the environment has and lacks, and end")
    parser.add_argument("--tp", action="store_true", help="split the model over the processes of torchrun")
    parser.add_argument("--device-map", help="place layers on devices, such as auto")
    parser.add_argument("--offload", help="folder for weights that fit nowhere")
    parser.add_argument("--cpu-memory", help="most memory on the CPU with a device map, such as 64GiB")
    parser.add_argument("--dtype", default="auto", help="float32, bfloat16 or float16; float32 on the CPU by default")
    parser.add_argument("--keep", type=int, default=1 << 30, help="bytes of residual states kept between forwards")
    args = parser.parse_args()
    if args.check:
        sys.exit(check())
    if args.model is None:
        parser.error("a checkpoint's folder is needed")
    # Nothing else may write into the stream of frames: libraries print to standard output.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    import torch

    from .server import serve
    from .transformers_engine import TransformersEngine

    if args.tp:
        torch.distributed.init_process_group(backend="nccl" if torch.cuda.is_available() else "gloo")
    dtype = args.dtype
    if dtype == "auto":
        dtype = "bfloat16" if torch.cuda.is_available() else "float32"
    memory = {"cpu": args.cpu_memory} if args.cpu_memory else None
    engine = TransformersEngine(args.model, tp=args.tp, device_map=args.device_map, offload=args.offload, dtype=dtype,
                                keep_bytes=args.keep, max_memory=memory)
    serve(engine, sys.stdin.buffer, replies)


if __name__ == "__main__":
    main()
