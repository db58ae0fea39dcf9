"""Writes a random checkpoint of the geometry of GLM-5.2-SIQ-Fruit: python3 benches/fruit.py DIR

13 layers (3 dense, 10 of 256 experts), hidden 1024, indexers of 32 x 128 on every layer, index_topk 2048, vocabulary
154,880, bf16: 9.3 GB. Only the sizes are that model's; the numbers are uniform noise, repeated from a pool of a million.
It is what the memory figures of long contexts and of --stream are measured on. Needs nothing but Python.
"""

import array
import json
import os
import random
import struct
import sys

CONFIG = {
    "model_type": "glm_moe_dsa", "torch_dtype": "bfloat16", "vocab_size": 154880, "hidden_size": 1024,
    "indexer_rope_interleave": True,
    "num_hidden_layers": 13, "num_attention_heads": 16, "q_lora_rank": 1024, "kv_lora_rank": 512,
    "qk_nope_head_dim": 192, "qk_rope_head_dim": 64, "v_head_dim": 256, "intermediate_size": 4096,
    "moe_intermediate_size": 512, "n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8,
    "first_k_dense_replace": 3, "n_group": 1, "topk_group": 1, "norm_topk_prob": True, "routed_scaling_factor": 2.5,
    "index_topk": 2048, "index_n_heads": 32, "index_head_dim": 128, "max_position_embeddings": 65536,
    "rope_theta": 500000.0, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
}
POOL = 1 << 20


def tensors():
    """Yields (name, shape); the last dimension is what a product sums over."""
    c = CONFIG
    hidden, heads = c["hidden_size"], c["num_attention_heads"]
    yield "model.embed_tokens.weight", [c["vocab_size"], hidden]
    for layer in range(c["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        yield f"{at}.input_layernorm.weight", [hidden]
        yield f"{at}.post_attention_layernorm.weight", [hidden]
        attention = f"{at}.self_attn"
        yield f"{attention}.q_a_proj.weight", [c["q_lora_rank"], hidden]
        yield f"{attention}.q_a_layernorm.weight", [c["q_lora_rank"]]
        yield f"{attention}.q_b_proj.weight", [heads * 256, c["q_lora_rank"]]
        yield f"{attention}.kv_a_proj_with_mqa.weight", [c["kv_lora_rank"] + c["qk_rope_head_dim"], hidden]
        yield f"{attention}.kv_a_layernorm.weight", [c["kv_lora_rank"]]
        yield f"{attention}.kv_b_proj.weight", [heads * (192 + 256), c["kv_lora_rank"]]
        yield f"{attention}.o_proj.weight", [hidden, heads * c["v_head_dim"]]
        width = c["index_n_heads"] * c["index_head_dim"]
        yield f"{attention}.indexer.wq_b.weight", [width, c["q_lora_rank"]]
        yield f"{attention}.indexer.wk.weight", [c["index_head_dim"], hidden]
        yield f"{attention}.indexer.k_norm.weight", [c["index_head_dim"]]
        yield f"{attention}.indexer.k_norm.bias", [c["index_head_dim"]]
        yield f"{attention}.indexer.weights_proj.weight", [c["index_n_heads"], hidden]
        if layer < c["first_k_dense_replace"]:
            mlps = [("mlp", c["intermediate_size"])]
        else:
            yield f"{at}.mlp.gate.weight", [c["n_routed_experts"], hidden]
            yield f"{at}.mlp.gate.e_score_correction_bias", [c["n_routed_experts"]]
            mlps = [(f"mlp.experts.{e}", c["moe_intermediate_size"]) for e in range(c["n_routed_experts"])]
            mlps.append(("mlp.shared_experts", c["moe_intermediate_size"]))
        for name, width in mlps:
            yield f"{at}.{name}.gate_proj.weight", [width, hidden]
            yield f"{at}.{name}.up_proj.weight", [width, hidden]
            yield f"{at}.{name}.down_proj.weight", [hidden, width]
    yield "model.norm.weight", [hidden]
    yield "lm_head.weight", [c["vocab_size"], hidden]


def bf16(value):
    return struct.unpack("<I", struct.pack("<f", value))[0] >> 16


def pool(width, pools={}):
    """Returns a million numbers, uniform within 1.7 / sqrt(width)."""
    if width not in pools:
        draw, bound = random.Random(width).uniform, 1.7 * width**-0.5
        few = [bf16(draw(-bound, bound)) for _ in range(1 << 16)]
        pick = random.Random(-width).choices
        pools[width] = array.array("H", pick(few, k=POOL)).tobytes()
    return pools[width]


def values(name, shape, rng):
    """Yields the bytes of a tensor."""
    count = 1
    for size in shape:
        count *= size
    if len(shape) == 1:
        yield struct.pack("<H", bf16(0.0 if "bias" in name else 1.0)) * count
        return
    noise = pool(shape[-1])
    left = 2 * count
    while left:
        start = 2 * rng.randrange(POOL)
        piece = noise[start : start + left]
        left -= len(piece)
        yield piece


def main(folder):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(CONFIG, file, indent=1)
    header, end = {}, 0
    for name, shape in tensors():
        size = 2
        for n in shape:
            size *= n
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    rng = random.Random(0)
    with open(os.path.join(folder, "model.safetensors"), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in tensors():
            for piece in values(name, shape, rng):
                file.write(piece)
    print(f"{folder}: {end / 1e9:.2f} GB of weights")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
