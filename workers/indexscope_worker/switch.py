"""Stands in for the indexers of a model in transformers, so that layers change their role between two forwards."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch

from .patterns import Route

Selection: TypeAlias = "torch.Tensor"


class KeysOf:
    """Stands in for a cache while an indexer runs on some queries: collects their keys, and gives back all so far."""

    def __init__(self) -> None:
        self.parts: list[torch.Tensor] = []

    def update_indexer(self, keys: torch.Tensor, layer: int) -> torch.Tensor:
        self.parts.append(keys)
        return self.all()

    def all(self) -> torch.Tensor:
        return torch.cat(self.parts, dim=1)


class Switch:
    """Takes the place of every layer's indexer: a Shared layer gets the selection of the latest Full one."""

    def __init__(self, layers: Any, index_bytes: int) -> None:
        self.route = Route()
        #: Whether the indexers of Shared layers run, too.
        self.shadow = False
        #: What the latest Full layer selected, [1, queries, keys].
        self.topk: Selection | None = None
        #: While recording: per layer the selection used, and the layer's own where it ran.
        self.sets: dict[int, tuple[Selection, Selection | None]] | None = None
        #: Most bytes of the scores [queries, heads, keys] that an indexer makes at once.
        self.index_bytes = index_bytes
        self.has = [layer.self_attn.indexer is not None for layer in layers]
        for number, layer in enumerate(layers):
            if self.has[number]:
                layer.self_attn.indexer.forward = self._wrap(number, layer.self_attn.indexer)

    def begin(self, route: Route, queries: int, keys: int, device: torch.device) -> None:
        """Prepares a forward of the last `queries` of `keys` positions."""
        self.route, self.topk = route, None
        if route.selects:
            return
        if route.window == 0:
            self.topk = torch.arange(keys, device=device).expand(1, queries, keys)
            return
        ends = torch.arange(keys - queries, keys, device=device)[:, None]
        # A query that has fewer keys behind it than the window names its first key more than once.
        self.topk = (ends - torch.arange(min(route.window, keys), device=device)).clamp(min=0)[None]

    def _wrap(self, number: int, indexer: Any) -> Any:
        original = indexer.forward

        def forward(
            hidden: Any, residual: Any, rope: Any, mask: Any, position_ids: Any = None, past_key_values: Any = None
        ) -> Selection:
            full = self.route.selects and self.route.roles[number] == "F"
            own: Selection | None = None
            if full or (self.shadow and self.route.selects):
                own = self._select(original, indexer, hidden, residual, rope, mask, position_ids, past_key_values)
            if full:
                self.topk = own
            assert self.topk is not None
            self.topk = self.topk.to(hidden.device)
            if self.sets is not None:
                self.sets[number] = (self.topk, own)
            return self.topk

        return forward

    def _select(
        self,
        original: Any,
        indexer: Any,
        hidden: Any,
        residual: Any,
        rope: Any,
        mask: Any,
        position_ids: Any,
        cache: Any,
    ) -> Any:
        """Runs an indexer, on as many queries at once as its scores may take memory for."""
        queries, keys = hidden.shape[1], mask.shape[-1]
        rows = max(16, self.index_bytes // (4 * indexer.n_heads * keys))
        if rows >= queries or keys != queries:
            return original(hidden, residual, rope, mask, position_ids, past_key_values=cache)
        seen, parts, k = KeysOf(), [], min(indexer.index_topk, keys)
        for begin in range(0, queries, rows):
            end = min(begin + rows, queries)
            some = slice(begin, end)
            part = original(
                hidden[:, some],
                residual[:, some],
                tuple(r[:, some] for r in rope),
                mask[:, some, :end],
                position_ids,
                past_key_values=seen,
            )
            # Fewer keys than k exist so far: the rest are keys to come, which no query sees.
            rest = torch.arange(part.shape[-1], k, device=part.device, dtype=part.dtype)
            parts.append(torch.cat([part, rest.expand(*part.shape[:-1], -1)], dim=-1))
        if cache is not None:
            cache.update_indexer(seen.all(), indexer.layer_idx)
        return torch.cat(parts, dim=1)
