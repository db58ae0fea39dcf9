"""transformers as an engine: one process, several under torchrun, or one with a device map.

The layers of `glm_moe_dsa` and `deepseek_v32` call `self_attn.indexer`; `Switch` stands in its place. Attention of
transformers is full and masked: losses are right, times say nothing about a serving engine.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache
from transformers.masking_utils import create_causal_mask

from .kept import Kept
from .patterns import Route, branches, parse
from .server import Check, Loss, Refused
from .switch import Switch

MODEL_TYPES = ("glm_moe_dsa", "deepseek_v32")
#: Positions whose logits are held at once.
ROWS = 512

State = tuple[torch.Tensor, torch.Tensor | None]


class TransformersEngine:
    """A checkpoint in transformers, its calibration sets, and residual states kept between forwards."""

    def __init__(
        self,
        path: str,
        *,
        tp: bool,
        device_map: str | None,
        offload: str | None,
        cpu_memory: str | None,
        dtype: str,
        keep_bytes: int,
        index_bytes: int,
    ) -> None:
        config = AutoConfig.from_pretrained(path)
        if config.model_type not in MODEL_TYPES:
            raise SystemExit(f"'{path}' is of type {config.model_type}; this worker serves {', '.join(MODEL_TYPES)}")
        options: dict[str, Any] = {}
        if tp:
            options["tp_plan"] = "auto"
        elif device_map:
            if importlib.util.find_spec("accelerate") is None:
                raise SystemExit("a device map needs the package 'accelerate': pip install accelerate")
            # What fits neither into devices nor into memory is read from files made here.
            if offload is None:
                self._folder = tempfile.TemporaryDirectory(prefix="indexscope-offload-")
                offload = self._folder.name
            options.update(
                device_map=device_map,
                offload_folder=offload,
                max_memory={"cpu": cpu_memory} if cpu_memory else None,
            )
        self.model, report = AutoModelForCausalLM.from_pretrained(
            path, dtype=getattr(torch, dtype), attn_implementation="sdpa", output_loading_info=True, **options
        )
        if not options and torch.cuda.is_available():
            self.model.to("cuda")
        self.model.eval()
        if missing := sorted(report["missing_keys"]):
            raise SystemExit(f"'{path}' lacks {len(missing)} tensors, which would be random: {', '.join(missing[:3])}")
        self.path, self.config = Path(path), self.model.config
        self.layers = self.model.model.layers
        self.switch = Switch(self.layers, index_bytes)
        types = getattr(config, "indexer_types", None) or ["full"] * len(self.layers)
        self.native = "".join("S" if kind == "shared" else "F" for kind in types)
        self.sets: dict[str, list[list[int]]] = {}
        self.kept: Kept[State] = Kept(keep_bytes)

    def describe(self) -> dict[str, Any]:
        can = ["losses", "top1", "kl", "record", "shadow", "resume", "dense", "window", "decode"]
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
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "devices": self._devices(),
            "ranks": torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1,
            "fingerprint": self._fingerprint(),
            "modes": ["skip"],
            "can": can + (["memory"] if self.memory() else []),
        }

    def _devices(self) -> list[str]:
        devices = {str(p.device) for p in self.model.parameters() if p.device.type != "meta"}
        placed = getattr(self.model, "hf_device_map", None) or {}
        return sorted(devices | {"disk" for place in placed.values() if place == "disk"})

    def _fingerprint(self) -> str:
        digest = hashlib.sha256(json.dumps(self.config.to_dict(), sort_keys=True, default=str).encode())
        for file in sorted(self.path.glob("*.safetensors")):
            with file.open("rb") as stream:
                digest.update(stream.read(1 << 16))
            digest.update(str(file.stat().st_size).encode())
        return digest.hexdigest()[:16]

    def memory(self) -> tuple[int, int] | None:
        if not torch.cuda.is_available():
            return None
        devices = [torch.cuda.mem_get_info(n) for n in range(torch.cuda.device_count())]
        return sum(free for free, _ in devices), sum(total for _, total in devices)

    def calibrate(self, name: str, sequences: list[list[int]]) -> None:
        vocabulary = self.config.vocab_size
        for n, ids in enumerate(sequences):
            if not all(0 <= token < vocabulary for token in ids):
                raise Refused("failed", f"sequence {n} has ids beyond the {vocabulary} of the model")
        self.kept.drop(name)
        self.sets[name] = sequences

    def forget(self) -> None:
        for name in self.sets:
            self.kept.drop(name)
        self.sets.clear()

    def _ids(self, name: str, sequence: int) -> list[int]:
        try:
            return self.sets[name][sequence]
        except (KeyError, IndexError):
            raise Refused("failed", f"set '{name}' has no sequence {sequence}", "calibrate first") from None

    @torch.no_grad()
    def _layers(
        self,
        ids: list[int],
        route: Route,
        check: Check,
        cache: DynamicCache | None = None,
        start: tuple[int, State] | None = None,
        keep: Callable[[int, State], None] | None = None,
    ) -> torch.Tensor:
        """Runs ids that follow those of the cache, from a layer on; `keep` gets the state after each layer."""
        switch, body = self.switch, self.model.model
        tokens = torch.tensor([ids], device=body.embed_tokens.weight.device if not self._offloaded() else None)
        x = body.embed_tokens(tokens)
        past = cache.get_seq_length() if cache is not None else 0
        positions = torch.arange(past, past + len(ids), device=x.device)[None]
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=x,
            attention_mask=None,
            past_key_values=cache,
            position_ids=positions,
            allow_is_causal_skip=False,
        )
        rope = body.rotary_emb(x, position_ids=positions)
        switch.begin(route, len(ids), past + len(ids), x.device)
        first = 0
        if start is not None:
            first, (x, topk) = start
            switch.topk = topk if route.selects else switch.topk
        for number in range(first, len(self.layers)):
            check()
            reused = {"prev_topk_indices": switch.topk} if self.config.model_type == "glm_moe_dsa" else {}
            out = self.layers[number](
                x,
                attention_mask=mask,
                position_embeddings=rope,
                position_ids=positions,
                past_key_values=cache,
                use_cache=cache is not None,
                **reused,
            )
            x = out[0] if isinstance(out, tuple) else out
            if keep is not None:
                keep(number + 1, (x, switch.topk))
        return x

    def _offloaded(self) -> bool:
        return bool(self.model.model.embed_tokens.weight.device.type == "meta")

    def _last(
        self, name: str, sequence: int, pattern: Any, resume: bool, needed: set[int], check: Check
    ) -> tuple[torch.Tensor, int]:
        """Returns the residual stream after the last layer, and how many layers ran.

        A forward of letters goes on from the deepest layer whose state was kept; states at the depths `needed`, at
        which later forwards leave this pattern, are kept before all others.
        """
        ids, route, depth = self._ids(name, sequence), parse(pattern, self.switch.has), len(self.layers)
        if not route.selects or not resume:
            return self._layers(ids, route, check), depth
        first, start = 0, None
        for layer in range(depth, 0, -1):
            if (known := self.kept.get((name, sequence, pattern[:layer]))) is not None:
                first, start = layer, (layer, known)
                break

        def keep(layer: int, state: State) -> None:
            # The state after the last layer is of use to the same pattern only, as the reference of KL.
            if layer < depth or layer in needed:
                x, topk = state
                size = x.nbytes + (0 if topk is None else topk.nbytes)
                self.kept.put((name, sequence, pattern[:layer]), state, size, layer in needed)

        return self._layers(ids, route, check, start=start, keep=keep), depth - first

    def _logits(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yields the logits of states after the last layer, some positions at a time."""
        for rows in self.model.model.norm(x)[0].split(ROWS):
            yield self.model.lm_head(rows[None])[0].float()

    @torch.no_grad()
    def losses(self, name: str, units: list[tuple[Any, int]], at: int, options: dict[str, Any], check: Check) -> Loss:
        pattern, sequence = units[at]
        resume, depth = options.get("resume", True), len(self.layers)
        against = options.get("kl")
        needed, known, ran = branches(units, at), None, 0
        if against is not None and pattern != against:
            known, ran = self._last(name, sequence, against, resume, needed | {depth}, check)
        mine = needed | ({depth} if pattern == against else set())
        x, layers = self._last(name, sequence, pattern, resume, mine, check)
        ids = torch.tensor(self._ids(name, sequence)[1:])
        references = self._logits(known[:, :-1]) if known is not None else None
        nll, top1, kl = [], [], []
        for logits, wanted in zip(self._logits(x[:, :-1]), ids.split(ROWS), strict=True):
            wanted = wanted.to(logits.device)
            nll.append(torch.nn.functional.cross_entropy(logits, wanted, reduction="none").cpu())
            if options.get("top1"):
                top1.append(logits.argmax(-1).to(torch.int32).cpu())
            if references is not None:
                p, q = next(references).log_softmax(-1), logits.log_softmax(-1)
                kl.append((p.exp() * (p - q)).sum(-1).clamp(min=0).cpu())
            elif against is not None:
                kl.append(torch.zeros(len(wanted)))
        return Loss(
            _bytes(nll, "<f4"),
            layers + ran,
            _bytes(top1, "<i4") if options.get("top1") else None,
            _bytes(kl, "<f4") if against is not None else None,
        )

    def record(
        self, name: str, pattern: Any, sequence: int, shadow: bool, check: Check
    ) -> Iterator[tuple[int, bool, list[int], bytes]]:
        switch, route = self.switch, parse(pattern, self.switch.has)
        if not route.selects:
            raise Refused("bad_pattern", f"no indexer selects in {pattern!r}", "record letters")
        switch.sets, switch.shadow = {}, shadow
        try:
            self._layers(self._ids(name, sequence), route, check)
            sets, last = switch.sets, None
        finally:
            switch.sets, switch.shadow = None, False
        for layer in range(len(self.layers)):
            used, own = sets.get(layer, (last, None))
            last = used
            yield layer, False, *self._rows(used)
            if own is not None and route.roles[layer] == "S":
                yield layer, True, *self._rows(own)

    def _rows(self, topk: torch.Tensor) -> tuple[list[int], bytes]:
        """Returns selections [1, T, k'] as [T, 1, k]: ascending, padded with -1, without later keys."""
        topk, k = topk[0].cpu(), self.config.index_topk
        queries = torch.arange(topk.shape[0])[:, None]
        none = torch.iinfo(torch.int64).max
        rows = topk.to(torch.int64).masked_fill((topk > queries) | (topk < 0), none).sort(-1).values
        rows = rows.masked_fill(rows == none, -1)
        rows = torch.nn.functional.pad(rows, (0, k - rows.shape[-1]), value=-1)
        return [rows.shape[0], 1, k], rows.numpy().astype("<i4").tobytes()

    @torch.no_grad()
    def decode(self, name: str, pattern: Any, sequence: int, tokens: int, check: Check) -> bytes:
        route, cache = parse(pattern, self.switch.has), DynamicCache(config=self.config)
        ids, found = self._ids(name, sequence), []
        for _ in range(tokens):
            x = self._layers(ids, route, check, cache=cache)
            ids = [int(next(self._logits(x[:, -1:])).argmax())]
            found += ids
        return _bytes([torch.tensor(found, dtype=torch.int32)], "<i4")


def _bytes(parts: list[torch.Tensor], dtype: str) -> bytes:
    """Returns the values of tensors one after the other, little-endian."""
    return torch.cat(parts).numpy().astype(dtype).tobytes() if parts else b""
