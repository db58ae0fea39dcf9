"""Makes small random checkpoints of llama, qwen2 and qwen3, and what transformers computes on them.

    python -m venv venv && venv/bin/pip install torch transformers==5.23.0
    venv/bin/python make_dense_fixtures.py OUT [NAME ...]

Folders are as make_fixtures.py makes them. Every layer selects by its own attention: the k keys with the highest
softmax probability averaged over heads, and then attends to those alone (a Shared layer to those of the last Full one).
`logits.dense` and `dense_loss` are of the model as it is. Weights are drawn again, layer by layer, until no query is near a tie.
"""
import json, math, os, sys
import torch
from safetensors.torch import save_file
import transformers
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

transformers.logging.set_verbosity_error()
torch.set_num_threads(1)
torch.set_grad_enabled(False)
TOPK = 8
BASE = dict(vocab_size=64, hidden_size=32, intermediate_size=40, num_hidden_layers=4, max_position_embeddings=512,
            bos_token_id=0, eos_token_id=1, pad_token_id=None)
LLAMA3 = dict(rope_type="llama3", rope_theta=500.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=16)
FIXTURES = {
    "llama_rope3": (LlamaConfig, dict(hidden_size=48, num_attention_heads=6, num_key_value_heads=2, head_dim=12, rms_norm_eps=1e-5,
                                      rope_parameters=LLAMA3)),
    "qwen2_bias_tied": (Qwen2Config, dict(num_attention_heads=4, num_key_value_heads=1, tie_word_embeddings=True,
                                          rope_parameters={"rope_type": "default", "rope_theta": 1e6})),
    "qwen3_norm": (Qwen3Config, dict(num_attention_heads=4, num_key_value_heads=2, head_dim=16, attention_bias=True,
                                     rope_parameters={"rope_type": "default", "rope_theta": 1e4})),
}
PATTERNS = ["FFFF", "FSSF"]
state = {}


def oracle(module, query, key, value, attention_mask, scaling, dropout=0.0, **_):
    """Attention that selects by itself where the pattern says so."""
    n = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(n, 1), value.repeat_interleave(n, 1)
    scores = query @ key.transpose(2, 3) * scaling
    T = scores.shape[-1]
    scores = scores.masked_fill(torch.ones(T, T).triu(1).bool(), float("-inf"))
    if state["pattern"]:
        if state["pattern"][module.layer_idx] == "F":
            mean = scores.softmax(-1, dtype=torch.float64)[0].mean(0)
            state["scores"][module.layer_idx] = mean
            state["rows"], _ = sets(mean)
        keep = torch.zeros(T, T + 1, dtype=torch.bool)
        keep.scatter_(1, torch.where(state["rows"] < 0, T, state["rows"]).long(), True)
        scores = scores.masked_fill(~keep[:, :T], float("-inf"))
    return (scores.softmax(-1) @ value).transpose(1, 2).contiguous(), None


ALL_ATTENTION_FUNCTIONS.register("oracle", oracle)
ALL_MASK_ATTENTION_FUNCTIONS.register("oracle", ALL_MASK_ATTENTION_FUNCTIONS["eager"])


def sets(scores):
    """Selected visible keys and margins of one layer."""
    rows, margins = torch.full((len(scores), TOPK), -1, dtype=torch.int32), torch.full((len(scores),), 1e30)
    for t in range(len(scores)):
        s, order = scores[t, :t + 1].sort(descending=True, stable=True)
        n = min(TOPK, t + 1)
        rows[t, :n] = order[:n].sort()[0].int()
        if t + 1 > TOPK: margins[t] = (s[TOPK - 1] - s[TOPK]) / s.max()
    return rows, margins


def run(model, ids, pattern):
    state.update(pattern=pattern, scores={})
    return model(ids, use_cache=False).logits[0], dict(state["scores"])


def fill(name, p):
    if "norm" in name: p.uniform_(0.5, 1.5)
    elif name.endswith("bias"): p.normal_(0, 0.3)
    elif "embed_tokens" in name: p.normal_(0, 1)
    elif "q_proj" in name or "k_proj" in name: p.normal_(0, 1.5 / math.sqrt(p.shape[-1]))
    else: p.normal_(0, 1 / math.sqrt(p.shape[-1]))


def weights(model, inputs, seed):
    torch.manual_seed(seed)
    for n, p in model.named_parameters(): fill(n, p)
    for l in range(model.config.num_hidden_layers):
        for attempt in range(4000):
            ok = all(float(sets(run(model, ids, P)[1][l])[1].min()) > 1e-4 for P in PATTERNS if P[l] == "F" for ids in inputs.values())
            if ok: break
            for n, p in model.named_parameters():
                if n.startswith(f"model.layers.{l}.self_attn"): fill(n, p)
        else: raise SystemExit(f"layer {l}: no margins found")
        print("  layer", l, "attempts", attempt + 1, flush=True)


def loss(logits, ids):
    return float(-torch.log_softmax(logits[:-1].double(), -1).gather(1, ids[0, 1:, None]).mean())


def expect(folder, inputs, seed):
    tensors, patterns, worst = {f"{k}input_ids": v.int() for k, v in inputs.items()}, {}, 0.0
    load = lambda dtype, impl="oracle": AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation=impl).eval()
    model, double, plain = load(torch.float32), load(torch.float32).double(), load(torch.float32, "eager")
    for P in PATTERNS:
        entry = {"full_layers": [l for l, c in enumerate(P) if c == "F"]}
        for key, ids in inputs.items():
            logits, scores = run(model, ids, P)
            logits2, scores2 = run(double, ids, P)
            worst = max(worst, float((logits2 - logits).abs().max()))
            both = {l: sets(scores[l]) for l in entry["full_layers"]}
            if any(not torch.equal(both[l][0], sets(scores2[l])[0]) for l in both): return False
            entry[f"{key}loss"] = loss(logits, ids)
            tensors[f"{key}logits.{P}"] = logits.float().contiguous()
            if key != "short_":
                tensors[f"{key}topk.{P}"] = torch.stack([both[l][0] for l in both])
                tensors[f"{key}margin.{P}"] = torch.stack([both[l][1] for l in both])
                entry[f"{key}min_margin_rel"] = float(min(b[1].min() for b in both.values()))
        patterns[P] = entry
    dense = {}
    for key, ids in inputs.items():
        logits, _ = run(plain, ids, None)
        tensors[f"{key}logits.dense"] = logits.float().contiguous()
        dense[f"{key}loss"] = loss(logits, ids)
    save_file(tensors, f"{folder}/expected.safetensors")
    os.chmod(f"{folder}/expected.safetensors", 0o644)
    summary = dict(transformers=transformers.__version__, torch=torch.__version__, seed=seed, index_topk=TOPK, dense=dense,
                   patterns=patterns, suggested_atol_logits=20 * worst)
    json.dump(summary, open(f"{folder}/expected.json", "w"), indent=1)
    return True


if __name__ == "__main__":
    for name in sys.argv[2:] or FIXTURES:
        kind, extra = FIXTURES[name]
        for seed in range(7, 40):
            folder = os.path.join(sys.argv[1], name)
            print(name, "seed", seed, flush=True)
            model = AutoModelForCausalLM.from_config(kind(**{**BASE, **extra}), attn_implementation="oracle").float().eval()
            torch.manual_seed(seed)
            inputs = {k: torch.randint(2, 64, (1, n)) for k, n in (("", 40), ("second_", 27), ("short_", TOPK - 2))}
            weights(model, inputs, seed)
            os.makedirs(folder, exist_ok=True)
            model.save_pretrained(folder)
            os.chmod(f"{folder}/model.safetensors", 0o644)
            for extra_file in ("generation_config.json",):
                if os.path.exists(f"{folder}/{extra_file}"): os.remove(f"{folder}/{extra_file}")
            if expect(folder, inputs, seed): break
