#!/usr/bin/env python3
"""The warm-up step of `indexscope train indexers` in PyTorch, to compare speeds with; run by hand.

    python benches/peer/train_indexers_torch.py MODEL_FOLDER [--seq-len 512] [--rows 128] [--threads 2] [--steps 10]

Needs torch and transformers, and a llama checkpoint as a Hugging Face folder. The same work as there: one sequence,
frozen base in f32 without gradients, every layer's indexer (4 heads of 32, 16 of them rotated, one key head, LayerNorm
on keys) trained by AdamW on KL(p || softmax of its scores) at sampled query rows, p being the head-averaged dense
attention of those rows. Prints the median seconds per step, by the clock and of processor time (which other work on the
machine disturbs less), and the mean KL of the first and the last step.
"""

import argparse
import statistics
import time

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM

HEADS, DIM, ROPE = 4, 32, 16


class Indexer(torch.nn.Module):
    def __init__(self, hidden, theta, length):
        super().__init__()
        self.wq_b = torch.nn.Linear(hidden, HEADS * DIM, bias=False)
        self.wk = torch.nn.Linear(hidden, DIM, bias=False)
        self.k_norm = torch.nn.LayerNorm(DIM, eps=1e-6)
        self.weights_proj = torch.nn.Linear(hidden, HEADS, bias=False)
        frequencies = theta ** (-torch.arange(0, ROPE, 2) / ROPE)
        angles = torch.arange(length)[:, None] * frequencies
        self.cos, self.sin = angles.cos(), angles.sin()

    def rotate(self, x, rows):
        cos, sin = (t[rows].unsqueeze(1) if x.dim() == 3 else t[rows] for t in (self.cos, self.sin))
        a, b, rest = x[..., : ROPE // 2], x[..., ROPE // 2 : ROPE], x[..., ROPE:]
        return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], -1)

    def forward(self, x, rows):
        q = self.rotate(self.wq_b(x[rows]).view(len(rows), HEADS, DIM), rows)
        k = self.rotate(self.k_norm(self.wk(x)), torch.arange(len(x)))
        w = self.weights_proj(x[rows]) * HEADS**-0.5
        scores = torch.relu(torch.einsum("rhd,td->rht", q, k) * DIM**-0.5)
        return (w.unsqueeze(-1) * scores).sum(1)


def rotate_half(x):
    a, b = x.chunk(2, -1)
    return torch.cat([-b, a], -1)


@torch.no_grad()
def layer_step(layer, config, x, cos, sin, rows):
    """Returns the layer's output, its normed input and the head-averaged attention of the rows."""
    t, heads, groups, d = len(x), config.num_attention_heads, config.num_key_value_heads, config.head_dim
    normed = layer.input_layernorm(x)
    a = layer.self_attn
    q = a.q_proj(normed).view(t, heads, d).transpose(0, 1)
    k = a.k_proj(normed).view(t, groups, d).transpose(0, 1)
    v = a.v_proj(normed).view(t, groups, d).transpose(0, 1)
    q, k = (z * cos + rotate_half(z) * sin for z in (q, k))
    k, v = (z.repeat_interleave(heads // groups, 0) for z in (k, v))
    out = F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]
    scores = q[:, rows] @ k.transpose(1, 2) * d**-0.5
    hidden = torch.arange(t)[None, :] > rows[:, None]
    p = scores.masked_fill(hidden, float("-inf")).softmax(-1).mean(0)
    x = x + a.o_proj(out.transpose(0, 1).reshape(t, heads * d))
    return x + layer.mlp(layer.post_attention_layernorm(x)), normed, p


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--seq-len", type=int, default=512)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    config = model.config
    theta = config.rope_parameters["rope_theta"]
    t, d = args.seq_len, config.head_dim
    angles = torch.arange(t)[:, None] * theta ** (-torch.arange(0, d, 2) / d)
    cos, sin = (f(angles).repeat(1, 2) for f in (torch.cos, torch.sin))
    layers = model.model.layers
    indexers = [Indexer(config.hidden_size, theta, t) for _ in layers]
    optimizers = [torch.optim.AdamW(i.parameters(), lr=2e-3, betas=(0.9, 0.95), weight_decay=0.0) for i in indexers]
    seconds, processor, divergences = [], [], []
    for _ in range(args.steps):
        ids = torch.randint(config.vocab_size, (t,))
        rows = (torch.randperm(t - 1)[: args.rows] + 1).sort().values
        began, used = time.perf_counter(), time.process_time()
        x = model.model.embed_tokens(ids).detach()
        total = 0.0
        for layer, indexer, optimizer in zip(layers, indexers, optimizers):
            x, normed, p = layer_step(layer, config, x, cos, sin, rows)
            scores = indexer(normed, rows)
            hidden = torch.arange(t)[None, :] > rows[:, None]
            log_q = scores.masked_fill(hidden, float("-inf")).log_softmax(-1).masked_fill(hidden, 0.0)
            loss = (torch.xlogy(p, p) - p * log_q).sum(-1).mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(indexer.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            total += loss.item()
        seconds.append(time.perf_counter() - began)
        processor.append(time.process_time() - used)
        divergences.append(total / len(layers))
    # The first steps allocate and warm up.
    print(f"{statistics.median(seconds[2:]):.3f} s per step (median of {args.steps - 2}), min {min(seconds[2:]):.3f},"
          f" processor {statistics.median(processor[2:]):.3f};"
          f" {args.threads} threads, T = {t}, {args.rows} rows; KL {divergences[0]:.3f} -> {divergences[-1]:.3f}")


if __name__ == "__main__":
    main()
