# SPDX-License-Identifier: GPL-3.0-or-later
"""FLUX.2 as one object: dev, and Klein in its distilled, base and cached (KV) forms."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

from ..lora.wear import worn
from .flux2 import Flux2Transformer, grid_ids, text_ids
from .flux2_cached import CachedReferences, cache_references
from .model import FluxModel, Mix, Predict, Shown
from .sampling import Mu, empirical_mu

REMEMBERED = 2  # sets of references; in Klein 9B one of 1024 x 1024 takes 2.1 GB


class Flux2Model(FluxModel):
    """References stand at times 10, 20, ... on grids of their own.

    cached: the model was trained to see references as keys and values, which are computed once as long as the same
    references are shown, over all steps and frames.
    """

    transformer: Flux2Transformer

    def __init__(self, *parts: Any, cached: bool = False, **options: Any) -> None:
        super().__init__(*parts, **options)
        self.cached = cached
        self._remembered: dict[str, CachedReferences] = {}

    @property
    def mu(self) -> Mu:
        return empirical_mu

    def release(self) -> None:
        super().release()
        self._remembered.clear()

    def _places(self, k: int, rows: int, columns: int) -> Tensor:
        return grid_ids(rows, columns, time=10.0 + 10.0 * k, device=self.device)

    def _prediction(self, prompt: Mix, rows: int, columns: int, shown: Shown | None, guidance: float) -> Predict:
        context = self.text.mixed(prompt).states.to(self.dtype)
        kept = None
        if shown is not None and self.cached:
            kept, shown = self._keys_and_values(shown), None
        ids = grid_ids(rows, columns, device=self.device)
        img_ids = ids if shown is None else torch.cat([ids, shown.ids])
        txt_ids = text_ids(context.shape[1], device=self.device)
        embedded = torch.full((1,), guidance, device=self.device) if self.transformer.config.guidance else None

        def predict(tokens: Tensor, t: Tensor, after: Tensor) -> Tensor:
            sequence = tokens if shown is None else torch.cat([tokens, shown.tokens], dim=1)
            out = self.transformer(sequence, context, t, img_ids, txt_ids, embedded, kept)
            return out[:, : rows * columns].float()

        return predict

    def _keys_and_values(self, shown: Shown) -> CachedReferences:
        """Of these references, which are told by their bytes, as the LoRAs in force see them."""
        content = hashlib.sha256(repr(worn()).encode())
        for part in shown:
            content.update(part.float().cpu().numpy().tobytes())
        key = content.hexdigest()
        if key not in self._remembered:
            while len(self._remembered) >= REMEMBERED:
                self._remembered.pop(next(iter(self._remembered)))
            self._remembered[key] = cache_references(self.transformer, shown.tokens, shown.ids)
        return self._remembered[key]
