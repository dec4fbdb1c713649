# SPDX-License-Identifier: GPL-3.0-or-later
"""FLUX.1 as one object: schnell, dev, Krea-dev, and Kontext-dev, which looks at a reference."""

from __future__ import annotations

import torch
from torch import Tensor

from .flux1 import Flux1Transformer, grid_ids, text_ids
from .model import FluxModel, Mix, Predict, Shown
from .sampling import Mu, linear_mu, no_shift


class Flux1Model(FluxModel):
    """Only schnell embeds no guidance, and it alone spaces its steps evenly."""

    transformer: Flux1Transformer

    @property
    def mu(self) -> Mu:
        return linear_mu if self.transformer.config.guidance else no_shift

    def _places(self, k: int, rows: int, columns: int) -> Tensor:
        # Kontext was trained with one; further ones are counted on.
        return grid_ids(rows, columns, picture=1.0 + k, device=self.device)

    def _prediction(self, prompt: Mix, rows: int, columns: int, shown: Shown | None, guidance: float) -> Predict:
        text = self.text.mixed(prompt)
        assert text.pooled is not None
        context, pooled = text.states.to(self.dtype), text.pooled.to(self.dtype)
        ids = grid_ids(rows, columns, device=self.device)
        img_ids = ids if shown is None else torch.cat([ids, shown.ids])
        txt_ids = text_ids(context.shape[1], device=self.device)
        embedded = torch.full((1,), guidance, device=self.device) if self.transformer.config.guidance else None

        def predict(tokens: Tensor, t: Tensor, after: Tensor) -> Tensor:
            sequence = tokens if shown is None else torch.cat([tokens, shown.tokens], dim=1)
            out = self.transformer(sequence, context, pooled, t, img_ids, txt_ids, embedded)
            return out[:, : rows * columns].float()

        return predict
