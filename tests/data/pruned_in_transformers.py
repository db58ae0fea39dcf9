"""Opens pruned checkpoints in transformers and writes the losses that it finds to pruned.json.

    python -m venv venv && venv/bin/pip install torch transformers==5.23.0
    cargo build --release
    venv/bin/python tests/data/pruned_in_transformers.py target/release/indexscope

A checkpoint is written by `indexscope export MODEL --pattern P --checkpoint OUT`, opened by `AutoModelForCausalLM` without
any argument, and must have no missing weights: the config alone says which layers share. The loss is the mean over all
targets of the fixture's `input_ids`. tests/export.rs compares the losses of this program with them.
"""
import json, os, subprocess, sys, tempfile
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
PRUNED = [("glm_dsa_tiny", "FSSFSS"), ("glm_dsa_tiny", "FSFSFS"), ("glm_sharded", "FSSS"), ("glm_locked_shared", "FSSSSSFS")]
torch.set_num_threads(1)
torch.set_grad_enabled(False)


def loss(binary, model, pattern):
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "pruned")
        arguments = [binary, "export", os.path.join(HERE, model), "--pattern", pattern, "--checkpoint", out]
        subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
        net, info = AutoModelForCausalLM.from_pretrained(
            out, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
        missing = [key for key in info["missing_keys"] if "inv_freq" not in key]
        assert not missing, missing
        words = ["full" if letter == "F" else "shared" for letter in pattern]
        assert net.config.indexer_types == words, net.config.indexer_types
        ids = load_file(os.path.join(HERE, model, "expected.safetensors"))["input_ids"].long().reshape(1, -1)
        logits = net(ids).logits[0, :-1].float()
        return torch.nn.functional.cross_entropy(logits, ids[0, 1:]).item()


results = [{"model": model, "pattern": pattern, "loss": loss(sys.argv[1], model, pattern)} for model, pattern in PRUNED]
with open(os.path.join(HERE, "pruned.json"), "w") as file:
    json.dump(results, file, indent=1)
    file.write("\n")
print(json.dumps(results))
