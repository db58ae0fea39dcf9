"""Makes the small checkpoints of this folder, and what transformers computes on them.

    tests/data/in_transformers.sh tests/data/make_fixtures.py OUT [NAME ...]

Each folder holds a checkpoint and `expected.{json,safetensors}`: for every pattern P and input, `logits.P` [T, V] f32,
`topk.P` [Full layers, T, k] (ascending, -1 padded, visible keys only) and `margin.P` [Full layers, T], the distance of
the k-th to the next score over the largest, 1e30 where all keys fit. Inputs are `input_ids`, `second_*` (another
length) and `short_*` (at most k keys). Expected values are f32 and come from the files as saved. Random indexers are
drawn again, layer by layer, until no query is near a tie. make_tiny_fixtures.py makes glm_dsa_tiny and
deepseek_v32_tiny.
"""
import json, math, os, sys
import torch
from safetensors.torch import load_file, save_file
import transformers
from transformers import DeepseekV32Config, DeepseekV32ForCausalLM, GlmMoeDsaConfig, GlmMoeDsaForCausalLM

transformers.logging.set_verbosity_error()
torch.set_num_threads(1)
torch.set_grad_enabled(False)
WORDS = {"F": "full", "S": "shared"}
BASE = dict(vocab_size=64, hidden_size=32, intermediate_size=40, moe_intermediate_size=8, num_hidden_layers=4,
            num_attention_heads=2, num_key_value_heads=2, n_routed_experts=4, n_shared_experts=1, num_experts_per_tok=2,
            q_lora_rank=16, kv_lora_rank=12, qk_nope_head_dim=6, qk_rope_head_dim=4, v_head_dim=8, index_topk=8,
            index_head_dim=8, index_n_heads=8, n_group=1, topk_group=1, max_position_embeddings=512, bos_token_id=0,
            eos_token_id=1, first_k_dense_replace=1, rope_parameters={"rope_type": "default", "rope_theta": 1e6})
OLD_YARN = dict(type="yarn", factor=40, beta_fast=32, beta_slow=1, mscale=1.0, mscale_all_dim=1.0,
                original_max_position_embeddings=64)
ODD_YARN = dict(rope_type="yarn", rope_theta=5e4, factor=8.0, beta_fast=16.0, beta_slow=2.0, mscale=0.8,
                mscale_all_dim=0.5, original_max_position_embeddings=128, truncate=False)
FIXTURES = {
    "glm_sharded": dict(config=dict(n_shared_experts=2, index_topk=6), patterns=["FFFF", "FSFS", "FSSS"], shard="60KB", mtp=True),
    "deepseek_groups_yarn": dict(family="deepseek", patterns=["FFFF", "FSSF"], old=True,
        config=dict(n_routed_experts=16, n_group=4, topk_group=2, num_experts_per_tok=3, moe_intermediate_size=4,
                    qk_rope_head_dim=8, index_head_dim=12, rope_parameters=dict(OLD_YARN, rope_type="yarn", rope_theta=10000.0),
                    max_position_embeddings=2560)),
    "glm_bf16_tied": dict(config=dict(tie_word_embeddings=True, norm_topk_prob=False, routed_scaling_factor=1.5), bf16=True,
        patterns=["FFFF", "FFSS"]),
    "glm_locked_shared": dict(config=dict(num_hidden_layers=8, first_k_dense_replace=3, n_routed_experts=2, num_experts_per_tok=1,
        index_n_heads=10), native="FFFSSSFS", patterns=["FFFSSSFS", "FSSSSSFS", "FFFSSSSS"]),
    "glm_bias_yarn": dict(config=dict(attention_bias=True, num_attention_heads=3, num_key_value_heads=3, v_head_dim=5, rope_parameters=ODD_YARN),
        patterns=["FFFF", "FFSF"]),
    "deepseek_dense_bf16_sharded": dict(family="deepseek", bf16=True, shard="20KB", patterns=["FFFF", "FSFS"],
        config=dict(first_k_dense_replace=4, num_attention_heads=4, num_key_value_heads=4, index_n_heads=12, index_topk=10,
                    rope_parameters={"rope_type": "default", "rope_theta": 10000.0})),
}


def build(spec, pattern):
    """A model that runs `pattern`: GLM's own sharing, for DeepSeek a stand-in that repeats the last indices."""
    glm = spec.get("family", "glm") == "glm"
    config = dict(BASE, **spec["config"])
    if glm:
        config["indexer_types"] = [WORDS[c] for c in pattern]
        model = GlmMoeDsaForCausalLM(GlmMoeDsaConfig(**config))
    else:
        model = DeepseekV32ForCausalLM(DeepseekV32Config(**config))
        share(model, pattern)
    model.set_attn_implementation("eager")
    return model.float().eval()


class Repeat(torch.nn.Module):
    """Returns the indices of the nearest earlier Full layer."""

    def __init__(self, source):
        super().__init__()
        self.source = [source]

    def forward(self, *_, **__):
        return self.source[0].last


def share(model, pattern):
    source = None
    for layer, letter in zip(model.model.layers, pattern):
        if letter == "F":
            source = layer.self_attn.indexer
            source.register_forward_hook(lambda m, _, out: setattr(m, "last", out))
        else:
            layer.self_attn.indexer = Repeat(source)


def fill(name, p):
    """Draws one parameter; latents and index keys are small so that a wrong epsilon shows."""
    small = 3e-3 if any(s in name for s in ("q_a_proj", "kv_a_proj", "indexer.wk")) else 1.0
    if "norm" in name and name.endswith("weight"): p.uniform_(0.5, 1.5)
    elif name.endswith("bias"): p.normal_(0, 0.3 * small)
    elif "embed_tokens" in name: p.normal_(0, 1)
    else: p.normal_(0, small / math.sqrt(p.shape[-1]))


def run(model, ids):
    """Logits, and per Full layer the masked index scores, and the smallest router margin per layer."""
    scores, routers = {}, {}
    topk = torch.Tensor.topk
    handles = []
    for l, layer in enumerate(model.model.layers):
        indexer = getattr(layer.self_attn, "indexer", None)
        if indexer is not None and not isinstance(indexer, Repeat):
            def start(*_, l=l):
                def seen(self, k, *a, **kw):
                    scores[l] = self[0].double()
                    return topk(self, k, *a, **kw)
                torch.Tensor.topk = seen
            handles.append(indexer.register_forward_pre_hook(start))
            handles.append(indexer.register_forward_hook(lambda *_: setattr(torch.Tensor, "topk", topk)))
        if hasattr(layer.mlp, "gate"):
            def gate(m, _, out, l=l):
                c, g = out[0].sigmoid() + m.e_score_correction_bias, model.config.n_group
                sums, keep = c.view(len(c), g, -1).topk(2)[0].sum(-1), model.config.topk_group
                s = sums.sort(descending=True)[0]
                margin = (s[:, keep - 1] - s[:, keep]).min() if keep < g else torch.tensor(9.0)
                mask = torch.zeros_like(sums).scatter_(1, sums.topk(keep)[1], 1).repeat_interleave(c.shape[1] // g, 1)
                s = c.masked_fill(mask == 0, -9).sort(descending=True)[0]
                routers[l] = float(torch.minimum(margin, (s[:, m.top_k - 1] - s[:, m.top_k]).min()))
            handles.append(layer.mlp.gate.register_forward_hook(gate))
    logits = model(ids, use_cache=False).logits[0]
    for h in handles: h.remove()
    return logits, scores, routers


def sets(scores, k):
    """Selected visible keys and margins of one layer."""
    rows, margins = torch.full((len(scores), k), -1, dtype=torch.int32), torch.full((len(scores),), 1e30)
    for t in range(len(scores)):
        s, order = scores[t, :t + 1].sort(descending=True)
        n = min(k, t + 1)
        rows[t, :n] = order[:n].sort()[0].int()
        if t + 1 > k: margins[t] = (s[k - 1] - s[k]) / s.abs().max().clamp(min=1e-30)
    return rows, margins


def weights(spec, seed):
    """An all-Full (or native) state without near-ties in any pattern."""
    torch.manual_seed(seed)
    native = spec.get("native", "F" * spec["patterns"][0].__len__())
    full = build(spec, native)
    for n, p in list(full.named_parameters()) + list(full.named_buffers()):
        if "inv_freq" not in n: fill(n, p)
    inputs = draw_inputs(full.config)
    round16 = lambda: [p.copy_(p.bfloat16().float()) for n, p in full.named_parameters()] if spec.get("bf16") else None
    round16()
    models = {p: build(spec, p) for p in spec["patterns"]}
    for l in range(full.config.num_hidden_layers):
        for attempt in range(4000):
            ok = True
            for m in models.values():
                m.load_state_dict(full.state_dict(), strict=False)
                for ids in inputs.values():
                    _, scores, routers = run(m, ids)
                    ok &= l not in scores or float(sets(scores[l], m.config.index_topk)[1].min()) > 2e-4
                    ok &= routers.get(l, 1.0) > 5e-4
                    if not ok: break
                if not ok: break
            if ok: break
            for n, p in list(full.named_parameters()) + list(full.named_buffers()):
                if n.startswith(f"model.layers.{l}.") and ("indexer" in n or "mlp.gate" in n): fill(n, p)
            round16()
        else: raise SystemExit(f"layer {l}: no margins found")
        print("  layer", l, "attempts", attempt + 1, flush=True)
    return full, inputs


def draw_inputs(config):
    ids = lambda n: torch.randint(2, config.vocab_size, (1, n))
    return {"": ids(40), "second_": ids(27), "short_": ids(config.index_topk - 2)}


def save(spec, model, folder):
    os.makedirs(folder, exist_ok=True)
    model.save_pretrained(folder, max_shard_size=spec.get("shard", "1GB"))
    files = sorted(f for f in os.listdir(folder) if f.endswith(".safetensors"))
    for f in files:
        tensors = load_file(f"{folder}/{f}")
        if spec.get("mtp") and f == files[-1]:
            L = model.config.num_hidden_layers
            extra = {f"model.layers.{L}.eh_proj.weight": torch.randn(32, 64), f"model.layers.{L}.enorm.weight": torch.ones(32),
                     f"model.layers.{L}.self_attn.indexer.wk.weight": torch.randn(8, 32)}
            tensors.update(extra)
            index = json.load(open(f"{folder}/model.safetensors.index.json"))
            index["weight_map"].update({n: f for n in extra})
            index["metadata"]["total_size"] += sum(t.numel() * 4 for t in extra.values())
            json.dump(index, open(f"{folder}/model.safetensors.index.json", "w"), indent=1)
        if spec.get("bf16"):
            tensors = {n: t if "e_score" in n else t.bfloat16() for n, t in tensors.items()}
        save_file(tensors, f"{folder}/{f}", metadata={"format": "pt"})
        os.chmod(f"{folder}/{f}", 0o644)
    path = f"{folder}/config.json"
    config = json.load(open(path))
    if spec.get("bf16"):
        config["dtype"] = "bfloat16"
        index = f"{folder}/model.safetensors.index.json"
        if os.path.exists(index):
            text = json.load(open(index))
            text["metadata"]["total_size"] //= 2
            json.dump(text, open(index, "w"), indent=1)
    if spec.get("old"):
        config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
        config["rope_scaling"] = OLD_YARN
        for key in ("mlp_layer_types", "layer_types", "head_dim", "qk_head_dim"): config.pop(key, None)
        config["torch_dtype"] = config.pop("dtype")
    if spec.get("native"):
        config.update(index_topk_freq=4, index_skip_topk_offset=3, index_topk_pattern=None)
    json.dump(config, open(path, "w"), indent=1)


def load(spec, folder, pattern):
    """The saved folder as transformers reads it, set to `pattern`."""
    if spec.get("family", "glm") == "glm":
        config = GlmMoeDsaConfig.from_pretrained(folder)
        if spec.get("native"): assert config.indexer_types == [WORDS[c] for c in spec["native"]]
        config.indexer_types = [WORDS[c] for c in pattern]
        return GlmMoeDsaForCausalLM.from_pretrained(folder, config=config, dtype=torch.float32, attn_implementation="eager").eval()
    model = DeepseekV32ForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    share(model, pattern)
    return model


def loss(logits, ids):
    return float(-torch.log_softmax(logits[:-1].double(), -1).gather(1, ids[0, 1:, None]).mean())


def expect(spec, folder, inputs, seed):
    """Expected values from the files, with the noise of f32 measured; False if any set is unstable."""
    tensors, patterns, worst = {f"{k}input_ids": v.int() for k, v in inputs.items()}, {}, 0.0
    for p in spec["patterns"]:
        model = load(spec, folder, p)
        double = load(spec, folder, p).double()
        double.set_experts_implementation("eager")
        noisy = load(spec, folder, p)
        torch.manual_seed(seed)
        for q in noisy.parameters(): q.mul_(1 + 3e-7 * torch.randn_like(q))
        entry = {"full_layers": [l for l, c in enumerate(p) if c == "F"]}
        for key, ids in inputs.items():
            logits, scores, routers = run(model, ids)
            entry[f"{key}loss"] = loss(logits, ids)
            tensors[f"{key}logits.{p}"] = logits.float().contiguous()
            for other in (double, noisy):
                logits2, scores2, _ = run(other, ids)
                worst = max(worst, float((logits2 - logits).abs().max()))
                for l in scores:
                    if not torch.equal(sets(scores[l], model.config.index_topk)[0], sets(scores2[l], model.config.index_topk)[0]): return False
            if key != "short_":
                both = [sets(scores[l], model.config.index_topk) for l in entry["full_layers"]]
                tensors[f"{key}topk.{p}"] = torch.stack([b[0] for b in both])
                tensors[f"{key}margin.{p}"] = torch.stack([b[1] for b in both])
                entry[f"{key}min_index_margin_rel"] = float(min(b[1].min() for b in both))
                entry[f"{key}min_router_margin"] = min(routers.values(), default=None)
        patterns[p] = entry
    save_file(tensors, f"{folder}/expected.safetensors")
    os.chmod(f"{folder}/expected.safetensors", 0o644)
    summary = dict(transformers=transformers.__version__, torch=torch.__version__, seed=seed, index_topk=model.config.index_topk,
                   native_pattern=spec.get("native"), patterns=patterns, suggested_atol_logits=10 * worst)
    json.dump(summary, open(f"{folder}/expected.json", "w"), indent=1)
    return True


if __name__ == "__main__":
    for name in sys.argv[2:] or FIXTURES:
        spec = FIXTURES[name]
        for seed in range(7, 40):
            folder = os.path.join(sys.argv[1], name)
            print(name, "seed", seed, flush=True)
            model, inputs = weights(spec, seed)
            save(spec, model, folder)
            if expect(spec, folder, inputs, seed): break
