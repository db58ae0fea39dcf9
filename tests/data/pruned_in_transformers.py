"""Opens pruned and distilled checkpoints in transformers and writes the losses that it finds to pruned.json and
distilled.json.

    cargo build --release
    tests/data/in_transformers.sh tests/data/pruned_in_transformers.py target/release/indexscope

A checkpoint is written by `indexscope export MODEL --pattern P --checkpoint OUT` or `indexscope train distill MODEL
--pattern P --out OUT --tokens TOKENS OPTIONS` (on the tokens that it is measured on: a few steps that change it), opened by `AutoModelForCausalLM` without
any argument, and must have no missing weights: the config alone says which layers share. The loss is the mean over all
targets of the fixture's `input_ids`. tests/suite/export.rs compares the losses of this program with them.
"""
import json, os, subprocess, sys, tempfile
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
PRUNED = [("glm_dsa_tiny", "FSSFSS"), ("glm_dsa_tiny", "FSFSFS"), ("glm_sharded", "FSSS"), ("glm_locked_shared", "FSSSSSFS")]
DISTILLED = [("glm_dsa_tiny", "FSSFSS"), ("glm_sharded", "FSFS")]
OPTIONS = "--seq-len 16 --steps 4 --sparse-steps 2 --rows 8 --lr 2e-2 --index-topk 6 --quiet".split()
# The rest of the model learns, too.
TUNED = "--seq-len 16 --steps 2 --sparse-steps 12 --rows 8 --lr 2e-2 --index-topk 6 --lm-lr 3e-3 --quiet".split()
torch.set_num_threads(1)
torch.set_grad_enabled(False)


def topk(scores, k, dim=-1, largest=True, sorted=True):
    """Ties go to the lowest index, as everywhere here: scores of exactly 0 are common, and torch takes any of them."""
    found = torch.sort(scores, dim=dim, descending=largest, stable=True)
    return torch.return_types.topk((found.values.narrow(dim, 0, k), found.indices.narrow(dim, 0, k)))


torch.topk = torch.Tensor.topk = topk


def loss(binary, model, pattern, options=None):
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "pruned")
        folder_of_model = os.path.join(HERE, model)
        ids = load_file(os.path.join(folder_of_model, "expected.safetensors"))["input_ids"].long().reshape(1, -1)
        arguments = [binary, "export", folder_of_model, "--pattern", pattern, "--checkpoint", out]
        if options:
            tokens = os.path.join(folder, "tokens.json")
            json.dump(ids.tolist(), open(tokens, "w"))
            arguments = [binary, "train", "distill", folder_of_model, "--pattern", pattern, "--out", out, "--tokens", tokens]
            arguments += options
        subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
        net, info = AutoModelForCausalLM.from_pretrained(
            out, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
        missing = [key for key in info["missing_keys"] if "inv_freq" not in key]
        assert not missing, missing
        words = ["full" if letter == "F" else "shared" for letter in pattern]
        assert net.config.indexer_types == words, net.config.indexer_types
        logits = net(ids).logits[0, :-1].float()
        return torch.nn.functional.cross_entropy(logits, ids[0, 1:]).item()


def write(name, results):
    with open(os.path.join(HERE, name), "w") as file:
        json.dump(results, file, indent=1)
        file.write("\n")
    print(json.dumps(results))


write("pruned.json", [{"model": m, "pattern": p, "loss": loss(sys.argv[1], m, p)} for m, p in PRUNED])
write("distilled.json", [
    {"model": m, "pattern": p, "options": o, "loss": loss(sys.argv[1], m, p, o)} for o in (OPTIONS, TUNED) for m, p in DISTILLED])
