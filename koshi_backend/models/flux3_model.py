# SPDX-License-Identifier: GPL-3.0-or-later
"""FLUX.3 Image Klein as one object, distilled and base."""

from __future__ import annotations

from torch import Tensor

from .flux2 import text_ids
from .flux3 import Flux3Transformer, Still, grid_ids
from .model import FluxModel, Mix, Predict, Shown
from .sampling import Mu, Rounding, constant_mu, rounded


class Flux3Model(FluxModel):
    """References stand beside each other at -1, -2, ..., each on a grid of its own.

    In the base model text and references pass their own blocks once per picture, for nothing in them depends on the
    step; the result is the same to the bit. In the distilled model they depend on the time that a step leads to.
    """

    transformer: Flux3Transformer

    @property
    def mu(self) -> Mu:
        return constant_mu

    def _places(self, k: int, rows: int, columns: int) -> Tensor:
        return grid_ids(rows, columns, reference=1 + k, device=self.device)

    def _told(self, t: float, rounding: Rounding) -> float:
        # Unlike for FLUX.2, diffusers casts the time itself here (flux3/denoise.py), which is Black Forest Labs' way.
        return rounded(t, "exact" if rounding == "exact" else "bfl")

    def _prediction(self, prompt: Mix, rows: int, columns: int, shown: Shown | None, guidance: float) -> Predict:
        context = self.text.mixed(prompt).states.to(self.dtype)
        text = Still(context, text_ids(context.shape[1], device=self.device))
        references = None if shown is None else Still(shown.tokens, shown.ids)
        ids = grid_ids(rows, columns, device=self.device)

        def predict(tokens: Tensor, t: Tensor, after: Tensor) -> Tensor:
            out: Tensor = self.transformer(tokens, t, ids, text, references, after)
            return out.float()

        return predict
