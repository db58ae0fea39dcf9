"""Opens the demo model in transformers and compares the losses that it finds with this program's.

    cargo build --release
    tests/data/in_transformers.sh tests/data/demo_in_transformers.py target/release/indexscope

The demo is written by `indexscope demo --write DIR` and opened by `AutoModelForCausalLM` and `AutoTokenizer`. Compared are
the loss of all-Full over the first four sequences of the validation text, as transformers' tokenizer cuts it, and that of
`uniform:4`, which transformers runs through the config's `indexer_types`. Fails where a loss differs by more than 1e-4.
"""
import json, os, subprocess, sys, tempfile
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

LENGTH, SEQUENCES, TOLERANCE = 512, 4, 1e-4
PATTERNS = {"all-full": "F" * 12, "uniform:4": "FSSS" * 3}
torch.set_grad_enabled(False)


def topk(scores, k, dim=-1, largest=True, sorted=True):
    """Ties go to the lowest index, as everywhere here: scores of exactly 0 are common, and torch takes any of them."""
    found = torch.sort(scores, dim=dim, descending=largest, stable=True)
    return torch.return_types.topk((found.values.narrow(dim, 0, k), found.indices.narrow(dim, 0, k)))


torch.topk = torch.Tensor.topk = topk


def ours(binary, arguments):
    command = [binary, "eval", *arguments, "--pattern", *" --pattern ".join(PATTERNS).split(), "--json", "--quiet"]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return {name: result["loss"] for name, result in zip(PATTERNS, found["results"])}


def theirs(folder, rows, letters):
    config = AutoConfig.from_pretrained(folder)
    config.indexer_types = ["full" if letter == "F" else "shared" for letter in letters]
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, config=config, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    missing = [key for key in info["missing_keys"] if "inv_freq" not in key]
    assert not missing, missing
    losses = [torch.nn.functional.cross_entropy(model(ids[None]).logits[0, :-1].float(), ids[1:]).item() for ids in rows]
    return sum(losses) / len(losses)


with tempfile.TemporaryDirectory() as folder:
    subprocess.run([sys.argv[1], "demo", "--write", folder], check=True)
    text = open(os.path.join(folder, "validation.txt"), encoding="utf-8").read()
    ids = AutoTokenizer.from_pretrained(folder)(text, add_special_tokens=False, return_tensors="pt").input_ids[0]
    rows = list(ids[: LENGTH * SEQUENCES].split(LENGTH))
    tokens = os.path.join(folder, "tokens.json")
    json.dump([row.tolist() for row in rows], open(tokens, "w"))
    cut = ["--seq-len", str(LENGTH), "--sequences", str(SEQUENCES)]
    by_ids = ours(sys.argv[1], [folder, "--tokens", tokens, *cut])
    by_text = ours(sys.argv[1], [folder, "--text", os.path.join(folder, "validation.txt"), *cut])
    print(f"transformers {transformers.__version__}, torch {torch.__version__}; nats per token, {SEQUENCES} sequences")
    for name, letters in PATTERNS.items():
        want = theirs(folder, rows, letters)
        print(f"{name:10} transformers {want:.6f}  indexscope {by_ids[name]:.6f}  from the text {by_text[name]:.6f}")
        assert abs(want - by_ids[name]) < TOLERANCE and abs(want - by_text[name]) < TOLERANCE, name
