"""transformers as an engine: one process, several under torchrun, or one with a device map.

The layers of `glm_moe_dsa` and `deepseek_v32` call `self_attn.indexer`; a wrapper in its place gives a Shared layer the
selection of the nearest earlier Full layer. Attention of transformers is full and masked: losses are right, times are no
serving speed.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

from .server import Refused

MODEL_TYPES = ("glm_moe_dsa", "deepseek_v32")
#: Positions whose logits are held at once.
ROWS = 512


class Switch:
    """Stands in for every layer's indexer; a layer's role can change between two forwards."""

    def __init__(self, layers) -> None:
        self.roles, self.shadow = "", False
        #: What the latest Full layer selected.
        self.topk: torch.Tensor | None = None
        #: While recording: per layer the selection used, and the layer's own where it ran.
        self.sets: dict[int, tuple[torch.Tensor, torch.Tensor | None]] | None = None
        self.has = [layer.self_attn.indexer is not None for layer in layers]
        for number, layer in enumerate(layers):
            if self.has[number]:
                layer.self_attn.indexer.forward = self._wrap(number, layer.self_attn.indexer.forward)

    def _wrap(self, number: int, own):
        def forward(hidden, *args, **kwargs):
            full = self.roles[number] == "F"
            mine = own(hidden, *args, **kwargs) if full or self.shadow else None
            if full:
                self.topk = mine
            used = self.topk.to(hidden.device)
            if self.sets is not None:
                self.sets[number] = (used, mine)
            return used

        return forward


class TransformersEngine:
    """A checkpoint in transformers, its calibration sets, and residual states kept between forwards."""

    def __init__(self, path: str, *, tp: bool, device_map: str | None, offload: str | None, dtype: str, keep_bytes: int,
                 max_memory: dict[str, str] | None) -> None:
        config = AutoConfig.from_pretrained(path)
        if config.model_type not in MODEL_TYPES:
            raise SystemExit(f"'{path}' is of type {config.model_type}; this worker serves {', '.join(MODEL_TYPES)}")
        options: dict[str, Any] = {}
        if tp:
            options["tp_plan"] = "auto"
        if device_map:
            options.update(device_map=device_map, offload_folder=offload, max_memory=max_memory)
        self.model, report = AutoModelForCausalLM.from_pretrained(
            path, dtype=getattr(torch, dtype), attn_implementation="sdpa", output_loading_info=True, **options)
        self.model.eval()
        if missing := sorted(report["missing_keys"]):
            raise SystemExit(f"'{path}' lacks {len(missing)} tensors, which transformers would fill at random: {missing[:3]}")
        self.path, self.config = Path(path), self.model.config
        self.layers = self.model.model.layers
        self.switch = Switch(self.layers)
        types = getattr(config, "indexer_types", None) or ["full"] * len(self.layers)
        self.native = "".join("S" if kind == "shared" else "F" for kind in types)
        self.sets: dict[str, list[list[int]]] = {}
        self.kept: dict[tuple[str, int, str], tuple[torch.Tensor, torch.Tensor]] = {}
        self.kept_bytes, self.keep_bytes = 0, keep_bytes

    def describe(self) -> dict[str, Any]:
        ranks = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
        return {
            "engine": f"transformers {transformers.__version__}",
            "model_type": self.config.model_type,
            "name": self.path.resolve().name,
            "layers": len(self.layers),
            "sites": list(range(len(self.layers))),
            "unit": {"kind": "token"},
            "groups": 1,
            "index_topk": self.config.index_topk,
            "index_heads": self.config.index_n_heads,
            "native": self.native,
            "locked_shared": [n for n, has in enumerate(self.switch.has) if not has],
            "dtype": str(self.model.dtype).split(".")[1],
            "devices": sorted({str(p.device) for p in self.model.parameters() if p.device.type != "meta"}),
            "ranks": ranks,
            "fingerprint": self._fingerprint(),
            "modes": ["skip"],
            "can": ["losses", "record", "shadow", "resume", "dense"],
        }

    def _fingerprint(self) -> str:
        digest = hashlib.sha256(json.dumps(self.config.to_dict(), sort_keys=True, default=str).encode())
        for file in sorted(self.path.glob("*.safetensors")):
            with file.open("rb") as stream:
                digest.update(stream.read(1 << 16))
            digest.update(str(file.stat().st_size).encode())
        return digest.hexdigest()[:16]

    def calibrate(self, name: str, sequences: list[list[int]]) -> None:
        self.sets[name] = sequences
        for key in [key for key in self.kept if key[0] == name]:
            state, topk = self.kept.pop(key)
            self.kept_bytes -= state.nbytes + topk.nbytes

    def _ids(self, name: str, sequence: int) -> list[int]:
        try:
            return self.sets[name][sequence]
        except (KeyError, IndexError):
            raise Refused("failed", f"set '{name}' has no sequence {sequence}", "calibrate first") from None

    def _roles(self, pattern: str) -> str:
        if pattern == "dense":
            return pattern
        if len(pattern) != len(self.layers) or set(pattern) - {"F", "S"} or pattern[0] != "F":
            raise Refused("bad_pattern", f"'{pattern}' is no pattern of {len(self.layers)} layers that starts Full")
        for number, role in enumerate(pattern):
            if role == "F" and not self.switch.has[number]:
                raise Refused("bad_pattern", f"layer {number} is Full, but has no indexer")
        return pattern

    @torch.no_grad()
    def _hidden(self, name: str, sequence: int, pattern: str, resume: bool, check) -> tuple[torch.Tensor, int]:
        """Returns the residual stream after the last layer, and how many layers ran."""
        from transformers.masking_utils import create_causal_mask

        switch, body = self.switch, self.model.model
        ids = torch.tensor([self._ids(name, sequence)], device=body.embed_tokens.weight.device)
        x = body.embed_tokens(ids)
        positions = torch.arange(ids.shape[1], device=x.device)[None]
        mask = create_causal_mask(config=self.config, inputs_embeds=x, attention_mask=None, past_key_values=None,
                                  position_ids=positions, allow_is_causal_skip=False)
        rope = body.rotary_emb(x, position_ids=positions)
        start = 0
        if resume:
            for layer in range(len(self.layers) - 1, 0, -1):
                if (known := self.kept.get((name, sequence, pattern[:layer]))) is not None:
                    (x, switch.topk), start = known, layer
                    break
        switch.roles = pattern
        for layer in range(start, len(self.layers)):
            check()
            extra = {"prev_topk_indices": switch.topk} if self.config.model_type == "glm_moe_dsa" else {}
            out = self.layers[layer](x, attention_mask=mask, position_embeddings=rope, position_ids=positions,
                                     past_key_values=None, use_cache=False, **extra)
            x = out[0] if isinstance(out, tuple) else out
            self._keep((name, sequence, pattern[: layer + 1]), x, resume and layer + 1 < len(self.layers))
        return x, len(self.layers) - start

    def _keep(self, key: tuple[str, int, str], x: torch.Tensor, wanted: bool) -> None:
        size = x.nbytes + self.switch.topk.nbytes
        if wanted and key not in self.kept and self.kept_bytes + size <= self.keep_bytes:
            self.kept[key] = (x, self.switch.topk)
            self.kept_bytes += size

    @torch.no_grad()
    def _dense(self, name: str, sequence: int, check) -> torch.Tensor:
        """Returns the residual stream where every visible key takes part: k is made as long as the sequence."""
        indexers = [layer.self_attn.indexer for layer in self.layers if layer.self_attn.indexer is not None]
        before = [indexer.index_topk for indexer in indexers]
        try:
            for indexer in indexers:
                indexer.index_topk = len(self._ids(name, sequence))
            first = "".join("F" if has else "S" for has in self.switch.has)
            return self._hidden(name, sequence, first, False, check)[0]
        finally:
            for indexer, topk in zip(indexers, before):
                indexer.index_topk = topk

    @torch.no_grad()
    def losses(self, name: str, pattern: str, sequence: int, resume: bool, check) -> tuple[bytes, int]:
        if self._roles(pattern) == "dense":
            x, ran = self._dense(name, sequence, check), len(self.layers)
        else:
            x, ran = self._hidden(name, sequence, pattern, resume, check)
        x, parts = self.model.model.norm(x)[0, :-1], []
        wanted = torch.tensor(self._ids(name, sequence)[1:])
        for rows, ids in zip(x.split(ROWS), wanted.split(ROWS)):
            logits = self.model.lm_head(rows[None])[0].float()
            parts.append(torch.nn.functional.cross_entropy(logits, ids.to(logits.device), reduction="none").cpu())
        return torch.cat(parts).numpy().astype("<f4").tobytes(), ran

    @torch.no_grad()
    def record(self, name: str, pattern: str, sequence: int, shadow: bool, check):
        switch = self.switch
        if self._roles(pattern) == "dense":
            raise Refused("bad_pattern", "dense attention selects nothing")
        switch.sets, switch.shadow = {}, shadow
        try:
            self._hidden(name, sequence, pattern, False, check)
            sets, last = switch.sets, None
        finally:
            switch.sets, switch.shadow = None, False
        for layer in range(len(self.layers)):
            used, mine = sets.get(layer, (last, None))
            last = used
            yield layer, False, *self._rows(used)
            if shadow and pattern[layer] == "S" and mine is not None:
                yield layer, True, *self._rows(mine)

    def _rows(self, topk: torch.Tensor) -> tuple[list[int], bytes]:
        """Returns selections [1, T, k'] as [T, 1, k] ascending and padded with -1: keys that a query does not see go."""
        topk, k = topk[0].cpu(), self.config.index_topk
        queries = torch.arange(topk.shape[0])[:, None]
        none = torch.iinfo(torch.int64).max
        rows = topk.to(torch.int64).masked_fill((topk > queries) | (topk < 0), none).sort(-1).values
        rows = rows.masked_fill(rows == none, -1)
        rows = torch.nn.functional.pad(rows, (0, k - rows.shape[-1]), value=-1)
        return [rows.shape[0], 1, k], rows.numpy().astype("<i4").tobytes()
