"""Makes glm_dsa_tiny and deepseek_v32_tiny, and what transformers computes on them (the others: make_fixtures.py).

    tests/data/in_transformers.sh tests/data/make_tiny_fixtures.py OUT [NAME ...]

The reference is transformers' own GlmMoeDsaForCausalLM and DeepseekV32ForCausalLM, unmodified but for two hooks:
`topk` is wrapped to record the scores that it sorts, and in DeepseekV32, which has no sharing in transformers 5.23, the
indexer of a Shared layer is replaced by one that returns the last Full layer's indices. The same replacement in GLM is
checked to equal its built-in sharing bit for bit.

Weights are drawn again, layer by layer, until no query is near a tie; tiny_fixture_seeds.json holds the draws that were
found, so that the search is short. Checkpoints are the same on every machine; expected values differ in their last bits
between processors. glm_dsa_tiny/affinity.json holds what the methods `dp` and `similarity` go by, in rows of the layers that
need indices, columns of those before them.
"""
import argparse, copy, hashlib, json, math, os, shutil, sys, time
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import save_file, load_file
from transformers import (DeepseekV32Config, DeepseekV32ForCausalLM, GlmMoeDsaConfig, GlmMoeDsaForCausalLM)

transformers.logging.set_verbosity_error()
torch.set_num_threads(2)
torch.set_grad_enabled(False)
FAMILIES = {"glm": (GlmMoeDsaConfig, GlmMoeDsaForCausalLM), "ds": (DeepseekV32Config, DeepseekV32ForCausalLM)}
NEG = -3.0e38  # stands for -inf / masked in stored score tensors
BIG = 1.0e30   # stored margin of a query whose causal context fits in top-k (no boundary)

# ---------------------------------------------------------------- specs
COMMON_SHARED = dict(
    vocab_size=128, hidden_size=64, intermediate_size=96, moe_intermediate_size=16, num_hidden_layers=6,
    num_attention_heads=4, num_key_value_heads=4, n_routed_experts=8, num_experts_per_tok=2, n_shared_experts=1,
    q_lora_rank=32, kv_lora_rank=16, index_topk=16, first_k_dense_replace=1, max_position_embeddings=512,
    bos_token_id=0, eos_token_id=1)
P6 = ["FFFFFF", "FSFSFS", "FFSSSS", "FSSSFS"]
SPECS = {
    "glm_dsa_tiny": dict(
        family="glm", seed=1101, T=96, patterns=P6, mtp=True,
        cfg=dict(COMMON_SHARED, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=12, index_head_dim=16, index_n_heads=4,
                 n_group=1, topk_group=1, routed_scaling_factor=2.5, rms_norm_eps=1e-5,
                 rope_parameters={"rope_type": "default", "rope_theta": 1000000.0})),
    "deepseek_v32_tiny": dict(
        family="ds", seed=2207, T=96, patterns=P6, mtp=False,
        cfg=dict(COMMON_SHARED, qk_nope_head_dim=12, qk_rope_head_dim=8, v_head_dim=16, index_head_dim=32, index_n_heads=4,
                 n_group=2, topk_group=1, routed_scaling_factor=2.5, rms_norm_eps=1e-6,
                 rope_parameters={"rope_type": "default", "rope_theta": 10000.0})),
}
MARGIN = float(os.environ.get("MARGIN", "1e-4"))   # relative margin wanted at every indexer boundary
RMARGIN = float(os.environ.get("RMARGIN", "1e-4"))  # absolute margin wanted at every router boundary
MAX_SECONDS = float(os.environ.get("MAX_SECONDS", "60"))
CACHE_FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tiny_fixture_seeds.json")
CACHE = json.load(open(CACHE_FILE)) if os.path.exists(CACHE_FILE) else {}
MAX_TRIES = int(os.environ.get("MAX_TRIES", "6000"))

# ---------------------------------------------------------------- init
def gen_for(name, seed, tweak=0):
    h = hashlib.sha256(f"{seed}|{name}|{tweak}".encode()).digest()
    g = torch.Generator(); g.manual_seed(int.from_bytes(h[:7], "little")); return g

def sample(name, p, cfg, seed, tweak=0):
    g = gen_for(name, seed, tweak)
    n = lambda *s: torch.randn(*s, generator=g)
    u = lambda lo, hi: lo + (hi - lo) * torch.rand(p.shape, generator=g)
    leaf = name.split(".")
    if name.endswith("e_score_correction_bias"): return 0.15 * n(*p.shape)
    if name.endswith("k_norm.bias"): return 0.4 * n(*p.shape)
    if "norm" in leaf[-2]: return u(0.5, 1.5)
    if "embed_tokens" in name: return n(*p.shape)
    fan_in = p.shape[-1]
    gain = 1.0
    if "indexer.wk" in name: gain = 0.05             # small pre-norm variance: makes the LayerNorm eps visible
    elif "indexer.wq_b" in name: gain = 1.2
    elif "q_a_proj" in name: gain = 0.05             # same for q_a_layernorm / kv_a_layernorm eps (1e-6, NOT rms_norm_eps)
    elif "q_b_proj" in name: gain = 1.6
    elif "kv_b_proj" in name: gain = 1.4
    elif "o_proj" in name: gain = 1.2
    elif "mlp.gate.weight" in name: gain = 1.5
    elif "down_proj" in name: gain = 0.9
    elif "lm_head" in name: gain = 2.0
    w = n(*p.shape) * (gain / math.sqrt(fan_in))
    if "kv_a_proj_with_mqa" in name: w[: cfg.kv_lora_rank] *= 0.05
    return w

def named_state(model):
    d = dict(model.named_parameters())
    d.update({k: b for k, b in model.named_buffers() if k.endswith("e_score_correction_bias")})
    return d

def fill(model, seed, only=None, tweak=0):
    for name, p in named_state(model).items():
        if only is not None and not any(name.startswith(o) for o in only): continue
        w = sample(name, p, model.config, seed, tweak)
        p.copy_(w.to(p.dtype))

# ---------------------------------------------------------------- recording
class Recorder:
    """Records, per indexer call, the score tensor handed to topk by the reference."""
    def __init__(self): self.scores = []
    def __enter__(self):
        self.orig = torch.Tensor.topk; rec = self
        def topk(t, k, *a, **kw):
            if t.dim() == 3 and t.shape[1] == t.shape[2]: rec.scores.append(t.detach().clone())
            return rec.orig(t, k, *a, **kw)
        torch.Tensor.topk = topk; return self
    def __exit__(self, *a): torch.Tensor.topk = self.orig

class Reuse(torch.nn.Module):
    def __init__(self, box): super().__init__(); self.box = box
    def forward(self, *a, **k): return self.box["idx"]

def with_sharing(model, pattern):
    """Context: apply an F/S pattern by replacing indexer modules (works for DeepseekV32; GLM check only)."""
    class Ctx:
        def __enter__(s):
            s.box, s.saved, s.hooks = {}, [], []
            for l, c in zip(model.model.layers, pattern):
                s.saved.append(l.self_attn.indexer)
                if c == "S": l.self_attn.indexer = Reuse(s.box)
                else: s.hooks.append(l.self_attn.indexer.register_forward_hook(lambda m, i, o: s.box.__setitem__("idx", o)))
        def __exit__(s, *a):
            for h in s.hooks: h.remove()
            for l, i in zip(model.model.layers, s.saved): l.self_attn.indexer = i
    return Ctx()

def set_pattern_glm(model, pattern, indexers):
    types = [{"F": "full", "S": "shared"}[c] for c in pattern]
    model.config.indexer_types = types
    for i, l in enumerate(model.model.layers):
        l.self_attn.skip_topk = types[i] == "shared"
        l.self_attn.indexer = None if types[i] == "shared" else indexers[i]

def boundary(scores, k):
    """scores [1,T,T] as sorted by the reference -> (sets [T,k] sorted ascending / -1 padded, rel margin [T])."""
    s = scores[0].double(); T = s.shape[0]
    causal = torch.tril(torch.ones(T, T, dtype=torch.bool))
    kk = min(k, T)
    sets = torch.full((T, kk), -1, dtype=torch.int32); margin = torch.full((T,), BIG, dtype=torch.float64)
    for t in range(T):
        row = s[t, : t + 1]
        m = min(kk, t + 1)
        top = torch.sort(torch.sort(row, descending=True, stable=True).indices[:m]).values
        sets[t, :m] = top.int()
        if t + 1 > kk:
            v = torch.sort(row, descending=True).values
            margin[t] = (v[kk - 1] - v[kk]) / row.abs().max().clamp_min(1e-30)
    return sets, margin

def min_margin(scores, k):
    s = scores[0]; T = s.shape[0]
    s = s.double().masked_fill(~torch.tril(torch.ones(T, T, dtype=torch.bool)), -math.inf)[k:]
    v = s.topk(k + 1, dim=-1).values
    top = s.masked_fill(s == -math.inf, 0).abs().amax(-1).clamp_min(1e-30)
    return float(((v[:, k - 1] - v[:, k]) / top).min())

def sets_from_indices(idx, k):
    T = idx.shape[1]; out = torch.full((T, min(k, T)), -1, dtype=torch.int32)
    for t in range(T):
        v = idx[0, t]; v = torch.sort(v[v <= t]).values
        out[t, : v.numel()] = v.int()
    return out

def router_margin(gate, x):
    x = x.reshape(-1, gate.hidden_dim)
    s = torch.nn.functional.linear(x.double(), gate.weight.double()).sigmoid()
    c = s + gate.e_score_correction_bias.double()
    G, m = gate.num_group, torch.tensor(1e9, dtype=torch.float64)
    if G > gate.topk_group:
        gs = c.view(-1, G, c.shape[1] // G).topk(2, dim=-1)[0].sum(-1)
        v = gs.sort(-1, descending=True).values
        m = torch.minimum(m, (v[:, gate.topk_group - 1] - v[:, gate.topk_group]).min())
        keep = torch.zeros_like(gs).scatter_(1, gs.topk(gate.topk_group, -1)[1], 1)
        c = c.masked_fill(~keep.bool().repeat_interleave(c.shape[1] // G, 1), -1e9)
    v = c.sort(-1, descending=True).values
    return float(torch.minimum(m, (v[:, gate.top_k - 1] - v[:, gate.top_k]).min()))

# ---------------------------------------------------------------- layer by layer search for tie-free weights
def search(model, spec, family, ids):
    """Walk the layers; resample a layer's indexer (and its router) until no boundary is a near-tie under any pattern."""
    cfg, inner, pats = model.config, model.model, spec["patterns"]
    T = ids.shape[1]; k = cfg.index_topk
    indexers = [l.self_attn.indexer for l in inner.layers]
    emb = inner.embed_tokens(ids); pos = torch.arange(T)[None]
    pe = inner.rotary_emb(emb, position_ids=pos)
    mask = torch.zeros(1, 1, T, T).masked_fill(~torch.tril(torch.ones(T, T, dtype=torch.bool)), torch.finfo(torch.float32).min)
    state = {p: (emb, None) for p in pats}
    for li, layer in enumerate(inner.layers):
        a = layer.self_attn; groups = {}
        for p in pats:  # identical inputs are computed once
            key = (p[: li + 1]); groups.setdefault(key, p)
        best, tweak, t0 = -1.0, 0, time.time()
        ck = f"{spec['name']}|{spec['seed']}|{li}"
        if ck in CACHE:  # result of an earlier search with the same spec
            tweak = CACHE[ck]; fill(model, spec["seed"], only=[f"model.layers.{li}.self_attn.indexer."], tweak=tweak)
        has_f = any(p[li] == "F" for p in pats)
        while has_f:
            worst = 1e9
            for key, p in groups.items():
                if p[li] != "F": continue
                h = layer.input_layernorm(state[p][0]); qr = a.q_a_layernorm(a.q_a_proj(h))
                with Recorder() as r: indexers[li](h, qr, pe, mask[:, 0], pos)
                worst = min(worst, min_margin(r.scores[0], k))
                if worst < MARGIN and worst <= best: break
            if worst > best: best, best_tweak = worst, tweak
            if best >= MARGIN or tweak >= MAX_TRIES or ck in CACHE or time.time() - t0 > MAX_SECONDS: break
            tweak += 1
            fill(model, spec["seed"], only=[f"model.layers.{li}.self_attn.indexer."], tweak=tweak)
        if has_f:
            fill(model, spec["seed"], only=[f"model.layers.{li}.self_attn.indexer."], tweak=best_tweak)
            CACHE[ck] = best_tweak; json.dump(CACHE, open(CACHE_FILE, "w"), indent=1, sort_keys=True)
        # run the layer (shared layers reuse indices), then settle its router
        def forward_all():
            seen, outs = [1e9], {}
            hook = layer.mlp.gate.register_forward_pre_hook(lambda m, i: seen.append(router_margin(m, i[0]))) if hasattr(layer.mlp, "gate") else None
            for key, p in groups.items():
                h, prev = state[p]; box = {}
                if p[li] == "F":
                    a.indexer = indexers[li]
                    hk = a.indexer.register_forward_hook(lambda m, i, o: box.__setitem__("idx", o))
                else:
                    a.indexer = Reuse({"idx": prev}); box["idx"] = prev; hk = None
                o = layer(h, attention_mask=mask, position_embeddings=pe, position_ids=pos, past_key_values=None)
                o = o[0] if isinstance(o, tuple) else o
                if hk: hk.remove()
                a.indexer = indexers[li]
                outs[key] = (o, box["idx"])
            if hook: hook.remove()
            return min(seen), outs
        rbest, rbt = -1.0, 0
        for rt in range(300):
            if rt: fill(model, spec["seed"], only=[f"model.layers.{li}.mlp.gate."], tweak=rt)
            w, outs = forward_all()
            if w > rbest: rbest, rbt = w, rt
            if rbest >= RMARGIN: break
        if rbt != rt:
            fill(model, spec["seed"], only=[f"model.layers.{li}.mlp.gate."], tweak=rbt); _, outs = forward_all()
        for p in pats: state[p] = outs[p[: li + 1]]
        print(f"   layer {li}: index margin {best:.2e} (try {tweak}), router margin {rbest:.2e} (try {rbt}), {time.time()-t0:.1f}s", flush=True)

# ---------------------------------------------------------------- running the reference
def run(model, family, ids, pattern, indexers, attn="eager"):
    """Full forward through the top-level model class. Returns dict."""
    model.set_attn_implementation(attn)
    hid, att, rin, idxs = [], [], [], {}
    hooks = []
    for i, l in enumerate(model.model.layers):
        hooks.append(l.register_forward_hook(lambda m, a, o: hid.append((o[0] if isinstance(o, tuple) else o).clone())))
        hooks.append(l.self_attn.register_forward_hook(lambda m, a, o: att.append(o[0].clone())))
        if hasattr(l.mlp, "gate"):
            hooks.append(l.mlp.gate.register_forward_hook(lambda m, a, o: rin.append((o[1].clone(), o[2].clone(), router_margin(m, a[0])))))
    full = [i for i, c in enumerate(pattern) if c == "F"]
    try:
        if family == "glm": set_pattern_glm(model, pattern, indexers)
        ctx = with_sharing(model, pattern) if family == "ds" else None
        if ctx: ctx.__enter__()
        for i in full:
            hooks.append(model.model.layers[i].self_attn.indexer.register_forward_hook(lambda m, a, o, i=i: idxs.__setitem__(i, o.clone())))
        with Recorder() as r: logits = model(ids, use_cache=False).logits
        if ctx: ctx.__exit__()
    finally:
        for h in hooks: h.remove()
    assert len(r.scores) == len(full), (len(r.scores), full)
    return dict(logits=logits[0], hidden=hid, attn=att, router=rin, idx=idxs, scores=r.scores, full=full)

def ce(logits, ids):
    lp = torch.log_softmax(logits.double()[:-1], -1)
    return float(-lp.gather(1, ids[0, 1:, None]).mean())

def hub_config(spec, cfg_saved):
    """config.json as the Hub repositories write it (old field names, fields transformers ignores)."""
    c = dict(spec["cfg"]); rp = dict(c.pop("rope_parameters"))
    out = dict(c, attention_bias=False, attention_dropout=0.0, hidden_act="silu", initializer_range=0.02, norm_topk_prob=True,
               tie_word_embeddings=False, use_cache=True, ep_size=1, moe_layer_freq=1, num_nextn_predict_layers=1 if spec["mtp"] else 0,
               scoring_func="sigmoid", topk_method="noaux_tc", pretraining_tp=1)
    if spec["family"] == "ds":
        theta = rp.pop("rope_theta"); t = rp.pop("rope_type")
        out.update(architectures=["DeepseekV32ForCausalLM"], model_type="deepseek_v32", rope_theta=theta, torch_dtype="float32",
                   rope_scaling=None if t == "default" else dict(rp, type=t), transformers_version="4.44.2")
    else:
        out.update(architectures=["GlmMoeDsaForCausalLM"], model_type="glm_moe_dsa", rope_parameters=rp, dtype="float32",
                   head_dim=c["qk_nope_head_dim"], qk_head_dim=c["qk_nope_head_dim"] + c["qk_rope_head_dim"],
                   rope_interleave=True, indexer_rope_interleave=True, moe_router_dtype="float32", transformers_version="5.12.0",
                   mlp_layer_types=["dense"] * c["first_k_dense_replace"] + ["sparse"] * (c["num_hidden_layers"] - c["first_k_dense_replace"]))
    return out

def build(name, spec, out_root):
    t_start = time.time()
    spec["name"] = name
    fam = spec["family"]; Cfg, Cls = FAMILIES[fam]
    cfg = Cfg(**copy.deepcopy(spec["cfg"]), attn_implementation="eager")
    model = Cls(cfg).float().eval()
    fill(model, spec["seed"])
    L, k, T = cfg.num_hidden_layers, cfg.index_topk, spec["T"]
    g = gen_for("input_ids", spec["seed"]); ids = torch.randint(2, cfg.vocab_size, (1, T), generator=g)
    short = torch.randint(2, cfg.vocab_size, (1, k - 4), generator=g)
    print(f"== {name}: {sum(p.numel() for p in model.parameters())} params", flush=True)
    search(model, spec, fam, ids)
    indexers = [l.self_attn.indexer for l in model.model.layers]

    # --- save the checkpoint
    d = os.path.join(out_root, name); shutil.rmtree(d, ignore_errors=True); os.makedirs(d)
    if fam == "glm": set_pattern_glm(model, "F" * L, indexers)
    model.save_pretrained(d, max_shard_size="1GB")
    for junk in ("generation_config.json",):
        if os.path.exists(os.path.join(d, junk)): os.remove(os.path.join(d, junk))
    if spec["mtp"]:
        mtp, allt = {}, load_file(os.path.join(d, "model.safetensors"))
        gm = gen_for("mtp", spec["seed"])
        src = f"model.layers.{L-1}."; dst = f"model.layers.{L}."
        for n, t in allt.items():
            if n.startswith(src): mtp[dst + n[len(src):]] = torch.randn(t.shape, generator=gm).to(t.dtype)
        H = cfg.hidden_size
        for n, s in (("eh_proj.weight", (H, 2 * H)), ("enorm.weight", (H,)), ("hnorm.weight", (H,)), ("shared_head.norm.weight", (H,))):
            mtp[dst + n] = torch.randn(s, generator=gm)
        allt.update(mtp); save_file(allt, os.path.join(d, "model.safetensors"), metadata={"format": "pt"})
        cj = json.load(open(os.path.join(d, "config.json"))); cj["num_nextn_predict_layers"] = 1
        json.dump(cj, open(os.path.join(d, "config.json"), "w"), indent=2)
    hub = hub_config(spec, None); json.dump(hub, open(os.path.join(d, "config_hub_style.json"), "w"), indent=2, sort_keys=True)

    # --- expected values come from the checkpoint as loaded back from disk, float32
    ref = Cls.from_pretrained(d, dtype=torch.float32, attn_implementation="eager").eval()
    a, b = named_state(ref), named_state(model)
    assert set(a) <= set(b) and all(torch.equal(a[n], b[n].to(a[n].dtype)) for n in a), "round trip differs"
    rind = [l.self_attn.indexer for l in ref.model.layers]
    # the hub-style config gives the same model
    hd = os.path.join(__import__("tempfile").mkdtemp(), "hub"); shutil.rmtree(hd, ignore_errors=True); shutil.copytree(d, hd)
    shutil.move(os.path.join(hd, "config_hub_style.json"), os.path.join(hd, "config.json"))
    refh = Cls.from_pretrained(hd, dtype=torch.float32, attn_implementation="eager").eval()
    hub_diff = float((refh(ids, use_cache=False).logits - ref(ids, use_cache=False).logits).abs().max()); shutil.rmtree(hd)
    assert hub_diff == 0.0, hub_diff

    ref64 = copy.deepcopy(ref).double(); ref64.set_experts_implementation("eager"); r64ind = [l.self_attn.indexer for l in ref64.model.layers]
    noisy = []
    for s in range(3):
        m = copy.deepcopy(ref); gg = torch.Generator().manual_seed(s)
        for p in m.parameters(): p.mul_(1 + 3e-7 * torch.randn(p.shape, generator=gg))
        noisy.append((m, [l.self_attn.indexer for l in m.model.layers]))
    exp = {"input_ids": ids.int(), "short_input_ids": short.int()}
    meta = dict(name="shared/" + name, transformers=transformers.__version__, torch=torch.__version__, seed=spec["seed"], family=fam,
                model_type=cfg.model_type, dtype="float32", T=T, index_topk=k, num_hidden_layers=L, short_T=k - 4,
                native_pattern=None, mtp_layer_present=spec["mtp"], patterns={}, hub_style_config_max_logit_diff=hub_diff,
                rope_attention_factor=float(ref.model.rotary_emb.attention_scaling), softmax_scale=float(ref.model.layers[0].self_attn.scaling))
    allF = None
    for p in spec["patterns"]:
        r = run(ref, fam, ids, p, rind); lg = r["logits"]
        sets, margins = [], []
        for j, li in enumerate(r["full"]):
            st, mg = boundary(r["scores"][j], k)
            assert torch.equal(st, sets_from_indices(r["idx"][li], k)), (name, p, li, "reference topk disagrees with own scores")
            sets.append(st); margins.append(mg)
        rs = run(ref, fam, ids, p, rind, attn="sdpa")
        r64 = run(ref64, fam, ids, p, r64ind)
        def agree(o): return all(torch.equal(sets_from_indices(o["idx"][li], k), sets[j]) for j, li in enumerate(r["full"]))
        def ragree(o): return all(torch.equal(x[1].sort(-1).values, y[1].sort(-1).values) for x, y in zip(o["router"], r["router"]))
        nz = [run(m, fam, ids, p, mi) for m, mi in noisy]
        if fam == "glm":   # the module-replacement used for DeepseekV32 == built-in sharing
            set_pattern_glm(ref, "F" * L, rind)
            ref.set_attn_implementation("eager")
            with with_sharing(ref, p): alt = ref(ids, use_cache=False).logits[0]
            assert torch.equal(alt, lg)
            set_pattern_glm(ref, p, rind)
        # incremental decode with the KV cache: prefill T-24, then one token at a time
        dec = None
        ref.set_attn_implementation("eager")
        ctx = with_sharing(ref, p) if fam == "ds" else None
        if ctx: ctx.__enter__()
        n0 = T - 24; o = ref(ids[:, :n0], use_cache=True); ls = [o.logits[0]]; c = o.past_key_values
        for t in range(n0, T): o = ref(ids[:, t : t + 1], past_key_values=c, use_cache=True); ls.append(o.logits[0])
        dec = float((torch.cat(ls) - lg).abs().max())
        sl = ref(short, use_cache=False).logits[0]
        if ctx: ctx.__exit__()
        exp[f"logits.{p}"] = lg.contiguous(); exp[f"short_logits.{p}"] = sl.contiguous()
        exp[f"topk.{p}"] = torch.stack(sets); exp[f"margin.{p}"] = torch.stack(margins).float()
        meta["patterns"][p] = dict(
            loss=ce(lg, ids), short_loss=ce(sl, short), full_layers=r["full"], min_index_margin_rel=float(torch.stack(margins).min()),
            queries_margin_below={f"{x:g}": int((torch.stack(margins) < x).sum()) for x in (1e-5, 1e-4, 1e-3)},
            min_router_margin=min(x[2] for x in r["router"]),
            logits_absmax=float(lg.abs().max()), logits_std=float(lg.std()),
            eager_vs_sdpa=float((rs["logits"] - lg).abs().max()), f32_vs_f64=float((r64["logits"].float() - lg).abs().max()),
            noise3e7_max=max(float((x["logits"] - lg).abs().max()) for x in nz), decode_vs_prefill=dec,
            sets_stable=dict(sdpa=agree(rs), f64=agree(r64), noise=all(agree(x) for x in nz)),
            router_stable=dict(sdpa=ragree(rs), f64=ragree(r64), noise=all(ragree(x) for x in nz)))
        if "S" not in p:
            allF = r
            lay = torch.stack(sets)  # how different are the sets of different layers
            ov = []
            for x in range(len(sets)):
                for y in range(x + 1, len(sets)):
                    rows = [len(set(sets[x][t].tolist()) & set(sets[y][t].tolist())) / k for t in range(2 * k, T)]
                    ov.append(sum(rows) / len(rows))
            meta["cross_layer_overlap"] = dict(mean=sum(ov) / len(ov), max=max(ov), min=min(ov))
            ref.set_attn_implementation("eager")
            emb = ref.model.embed_tokens(ids)[0]
            exp["dbg.hidden"] = torch.stack([emb] + [h[0] for h in r["hidden"]]); exp["dbg.attn_out"] = torch.stack([h[0] for h in r["attn"][:2]])
            causal = torch.tril(torch.ones(T, T, dtype=torch.bool))
            exp["dbg.index_scores"] = torch.stack([s[0].masked_fill(~causal, NEG) for s in r["scores"][:3]])
            exp["dbg.router_idx"] = torch.stack([x[1].sort(-1).values for x in r["router"]]).int()
            exp["dbg.router_w"] = torch.stack([x[0].gather(1, x[1].argsort(-1)) for x in r["router"]])
            pe = ref.model.rotary_emb(emb[None], torch.arange(T)[None]); exp["dbg.rope_cos"] = pe[0][0, :, : cfg.qk_rope_head_dim // 2].contiguous(); exp["dbg.rope_sin"] = pe[1][0, :, : cfg.qk_rope_head_dim // 2].contiguous()
    exp["dbg.inv_freq"] = ref.model.rotary_emb.inv_freq.float().clone()
    losses = [v["loss"] for v in meta["patterns"].values()]
    assert len(set(round(x, 4) for x in losses)) == len(losses), losses
    meta["suggested_atol_logits"] = 10 * max(max(v["f32_vs_f64"], v["eager_vs_sdpa"], v["noise3e7_max"]) for v in meta["patterns"].values())
    # negative controls: what a plausible mistake does to the all-F logits
    meta["negative_controls"] = controls(ref, fam, ids, spec["patterns"][0], rind)
    save_file({n: t.contiguous() for n, t in exp.items()}, os.path.join(d, "expected.safetensors"))
    json.dump(meta, open(os.path.join(d, "expected.json"), "w"), indent=1)
    if fam == "glm":
        set_pattern_glm(ref, "F" * L, rind)
        json.dump(affinity(ref, ids, allF), open(os.path.join(d, "affinity.json"), "w"), indent=1)
    for f in os.listdir(d): os.chmod(os.path.join(d, f), 0o644)
    size = sum(os.path.getsize(os.path.join(d, f)) for f in os.listdir(d))
    print(json.dumps(meta["patterns"], indent=0)[:6000]); print(meta["cross_layer_overlap"], "atol", meta["suggested_atol_logits"])
    print("controls", json.dumps(meta["negative_controls"]))
    print(f"== {name} done: {size/1e6:.2f} MB, {time.time()-t_start:.0f}s", flush=True)

def affinity(ref, ids, r):
    """Mass recall and cosine of attention outputs, means over the queries that see more than k keys.

    Layer i's attention runs on its own input under all-Full: with its own set, with that of each layer j < i, and dense.
    `mass_recall` also over the 64 evenly spread queries that the program looks at.
    """
    k, T = ref.config.index_topk, ids.shape[1]
    ref.set_attn_implementation("eager")
    inputs = [ref.model.embed_tokens(ids)] + r["hidden"][:-1]
    pos = torch.arange(T)[None]
    pe = ref.model.rotary_emb(inputs[0], position_ids=pos)
    causal = torch.tril(torch.ones(T, T, dtype=torch.bool))
    mask = torch.zeros(1, 1, T, T).masked_fill(~causal, torch.finfo(torch.float32).min)
    dense = torch.arange(T).expand(1, T, T)
    rows = torch.tensor([k + i * (T - k) // 64 for i in range(64)])
    out = {"mass_recall": [], "output_cosine": []}
    for i, layer in enumerate(ref.model.layers):
        a, own = layer.self_attn, layer.self_attn.indexer
        def run(idx):
            a.indexer = Reuse({"idx": idx})
            o = a(layer.input_layernorm(inputs[i]), position_embeddings=pe, attention_mask=mask, past_key_values=None, position_ids=pos)
            a.indexer = own
            return o[0][0].double(), o[1][0].double().mean(0)
        picked = lambda j: torch.zeros(T, T).scatter_(1, r["idx"][j][0].long(), 1).masked_fill(~causal, 0).double()
        probabilities, base = run(dense)[1], run(r["idx"][i])[0]
        kept = lambda j: (probabilities * picked(j)).sum(-1)[rows]
        out["mass_recall"].append([float((kept(j) / kept(i)).mean()) for j in range(i)])
        out["output_cosine"].append([float(torch.cosine_similarity(run(r["idx"][j])[0], base, dim=-1)[k:].mean()) for j in range(i)])
    return out

def controls(ref, fam, ids, pattern, rind):
    """Max |logit| change of the reference when one convention is broken: proves the fixture can tell."""
    import transformers.models.glm_moe_dsa.modeling_glm_moe_dsa as G, transformers.models.deepseek_v32.modeling_deepseek_v32 as D
    M = G if fam == "glm" else D
    base = run(ref, fam, ids, pattern, rind)["logits"]; out = {}
    def diff(): return float((run(ref, fam, ids, pattern, rind)["logits"] - base).abs().max())
    cfgE = ref.config.rms_norm_eps
    for l in ref.model.layers: l.self_attn.q_a_layernorm.variance_epsilon = l.self_attn.kv_a_layernorm.variance_epsilon = 1e-5
    out["latent_norm_eps_1e-5_instead_of_1e-6"] = diff()
    for l in ref.model.layers: l.self_attn.q_a_layernorm.variance_epsilon = l.self_attn.kv_a_layernorm.variance_epsilon = 1e-6
    for i in rind:
        if i is not None: i.k_norm.eps = 1e-5
    out["k_norm_eps_1e-5_instead_of_1e-6"] = diff()
    for i in rind:
        if i is not None: i.k_norm.eps = 1e-6
    inter, half = M.apply_rotary_pos_emb_interleave, D.apply_rotary_pos_emb
    if fam == "glm":
        def swap(q, k, cos, sin, position_ids=None, unsqueeze_dim=1):
            return half(q, k, cos, sin, unsqueeze_dim=unsqueeze_dim) if unsqueeze_dim == 2 else inter(q, k, cos, sin, unsqueeze_dim=unsqueeze_dim)
        M.apply_rotary_pos_emb_interleave = swap; out["indexer_rope_half_split_instead_of_interleaved"] = diff()
        def swap2(q, k, cos, sin, position_ids=None, unsqueeze_dim=1):
            return half(q, k, cos, sin, unsqueeze_dim=unsqueeze_dim) if unsqueeze_dim == 1 else inter(q, k, cos, sin, unsqueeze_dim=unsqueeze_dim)
        M.apply_rotary_pos_emb_interleave = swap2; out["main_rope_half_split_instead_of_interleaved"] = diff()
        M.apply_rotary_pos_emb_interleave = inter
    else:
        M.apply_rotary_pos_emb = lambda q, k, cos, sin, unsqueeze_dim=1: inter(q, k, cos, sin, unsqueeze_dim=unsqueeze_dim)
        out["indexer_rope_interleaved_instead_of_half_split"] = diff(); M.apply_rotary_pos_emb = half
        M.apply_rotary_pos_emb_interleave = lambda q, k, cos, sin, position_ids=None, unsqueeze_dim=1: half(q, k, cos, sin, unsqueeze_dim=unsqueeze_dim)
        out["main_rope_half_split_instead_of_interleaved"] = diff(); M.apply_rotary_pos_emb_interleave = inter
    sc = [l.self_attn.scaling for l in ref.model.layers]; c = ref.config
    plain = (c.qk_nope_head_dim + c.qk_rope_head_dim) ** -0.5
    if abs(sc[0] - plain) > 1e-9:
        for l in ref.model.layers: l.self_attn.scaling = plain
        out["yarn_mscale_squared_dropped"] = diff()
        for l, s in zip(ref.model.layers, sc): l.self_attn.scaling = s
    saved = [(l.mlp.gate, l.mlp.gate.e_score_correction_bias.clone()) for l in ref.model.layers if hasattr(l.mlp, "gate")]
    for g, b in saved: g.e_score_correction_bias.zero_()
    out["router_bias_ignored"] = diff()
    for g, b in saved: g.e_score_correction_bias.copy_(b)
    if c.n_group > 1:
        for g, b in saved: g._tg = g.topk_group; g.topk_group = g.num_group
        out["group_limit_ignored"] = diff()
        for g, b in saved: g.topk_group = g._tg
    for i in rind:
        if i is not None: i.index_topk = 10**6
    out["dense_attention_no_topk"] = diff()
    for i in rind:
        if i is not None: i.index_topk = c.index_topk
    orig = M.F.relu; M.F.relu = lambda x: x; out["indexer_relu_dropped"] = diff(); M.F.relu = orig
    assert diff() == 0.0
    return out

if __name__ == "__main__":
    ap = argparse.ArgumentParser(); ap.add_argument("out"); ap.add_argument("names", nargs="*"); a = ap.parse_args()
    for n, s in SPECS.items():
        if not a.names or any(x in n for x in a.names): build(n, s, a.out)
