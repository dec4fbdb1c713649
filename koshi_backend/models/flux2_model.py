# SPDX-License-Identifier: GPL-3.0-or-later
"""FLUX.2 as one object: dev, and Klein in its distilled and base forms."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .flux2 import Flux2Transformer, grid_ids, text_ids
from .model import FluxModel, Shown
from .sampling import Mu, empirical_mu


class Flux2Model(FluxModel):
    """References stand at times 10, 20, ... on grids of their own."""

    transformer: Flux2Transformer

    @property
    def mu(self) -> Mu:
        return empirical_mu

    def _places(self, k: int, rows: int, columns: int) -> Tensor:
        return grid_ids(rows, columns, time=10.0 + 10.0 * k, device=self.device)

    def _prediction(
        self, prompt: str, rows: int, columns: int, shown: Shown | None, guidance: float
    ) -> Callable[[Tensor, float], Tensor]:
        context = self.text.encode([prompt]).states.to(self.dtype)
        ids = grid_ids(rows, columns, device=self.device)
        img_ids = ids if shown is None else torch.cat([ids, shown.ids])
        txt_ids = text_ids(context.shape[1], device=self.device)
        embedded = torch.full((1,), guidance, device=self.device) if self.transformer.config.guidance else None

        def predict(tokens: Tensor, t: float) -> Tensor:
            sequence = tokens if shown is None else torch.cat([tokens, shown.tokens], dim=1)
            when = torch.full((1,), t, device=self.device)
            out = self.transformer(sequence, context, when, img_ids, txt_ids, embedded)
            return out[:, : rows * columns].float()

        return predict
