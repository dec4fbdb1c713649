# SPDX-License-Identifier: GPL-3.0-or-later
"""Muon (orthogonalised momentum) for matrices and convolutions, Adam for everything else, in one optimiser."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn


def orthogonalise(g: Tensor, dtype: torch.dtype = torch.float32, steps: int = 5) -> Tensor:
    """Newton-Schulz iteration in `dtype` on matrices [B, m, n]: all singular values move to about 1."""
    x = g.to(dtype)
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    for _ in range(steps):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x.mT if tall else x).to(g.dtype)


class Muon(torch.optim.Optimizer):
    """adam: parts of names that stay with Adam although they are matrices (embeddings, first and last layers).

    Fused query, key and value weights are three independent matrices and are treated as such.
    """

    def __init__(
        self,
        named: Iterable[tuple[str, Tensor]],
        lr: float,
        adam: tuple[str, ...] = (),
        decay: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        groups: dict[str, list[Tensor]] = {"muon": [], "fused": [], "adam": []}
        for name, p in named:
            matrix = p.ndim >= 2 and not any(part in name for part in adam)
            groups["adam" if not matrix else "fused" if name.endswith("qkv.weight") else "muon"].append(p)
        listed = [{"params": members, "kind": kind} for kind, members in groups.items() if members]
        self.dtype = dtype  # of the orthogonalisation, which in float32 can take half of a CPU's step
        super().__init__(listed, {"lr": lr, "decay": decay})

    @torch.no_grad()
    def step(self, gain: float = 1.0) -> None:  # type: ignore[override]
        """One step at the learning rate times `gain`."""
        for group in self.param_groups:
            members = [p for p in group["params"] if p.grad is not None]
            if group["kind"] == "adam":
                self._adam(members, group["lr"] * gain)
            else:
                self._muon(members, group["lr"] * gain, group["decay"], 3 if group["kind"] == "fused" else 1)

    def _adam(self, members: list[Tensor], lr: float, betas: tuple[float, float] = (0.9, 0.98)) -> None:
        for p in members:
            s = self.state[p]
            if not s:
                s["t"], s["m"], s["v"] = 0, torch.zeros_like(p), torch.zeros_like(p)
            s["t"] += 1
            s["m"].lerp_(p.grad, 1 - betas[0])
            s["v"].mul_(betas[1]).addcmul_(p.grad, p.grad, value=1 - betas[1])
            spread = (s["v"] / (1 - betas[1] ** s["t"])).sqrt_().add_(1e-8)
            p.addcdiv_(s["m"], spread, value=-lr / (1 - betas[0] ** s["t"]))

    def _muon(self, members: list[Tensor], lr: float, decay: float, pieces: int, momentum: float = 0.95) -> None:
        by_shape: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
        for p in members:
            s = self.state[p]
            if not s:
                s["m"] = torch.zeros_like(p)
            s["m"].lerp_(p.grad, 1 - momentum)
            update = p.grad.lerp(s["m"], momentum).flatten(1)
            by_shape.setdefault((update.shape[0] // pieces, update.shape[1]), []).append((p, update))
        for (rows, columns), items in by_shape.items():
            whole = orthogonalise(torch.cat([u.view(pieces, rows, columns) for _, u in items]), self.dtype)
            for (p, _), direction in zip(items, whole.split(pieces), strict=True):
                p.mul_(1 - lr * decay)
                p.add_(direction.reshape(p.shape), alpha=-lr * 0.2 * max(rows, columns) ** 0.5)


def cast(module: nn.Module, dtype: torch.dtype) -> None:
    """Change the type of the parameters only: a language model's rotary frequencies must stay float32."""
    for p in module.parameters():
        p.data = p.data.to(dtype)


class Masters:
    """float32 weights beside a module that computes in `dtype`, and their running average.

    A bfloat16 module with float32 masters takes half the time of autocast on a CPU.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype, only: Callable[[str], bool] = lambda name: True) -> None:
        chosen = {n: p for n, p in module.named_parameters() if only(n)}
        self.master = {n: p.detach().float().clone().requires_grad_() for n, p in chosen.items()}
        self.average = {n: p.detach().clone() for n, p in self.master.items()}
        cast(module, dtype)
        self.live = {n: p for n, p in module.named_parameters() if n in self.master}
        for name, p in module.named_parameters():
            p.requires_grad_(name in self.master)

    def pull(self) -> None:
        """Gradients of the module to the masters; clears the module's."""
        for name, p in self.live.items():
            self.master[name].grad = None if p.grad is None else p.grad.float()
            p.grad = None

    @torch.no_grad()
    def push(self, keep: float | None = None, average: bool = False) -> None:
        """Masters to the module, or the average. keep: also let the average follow, keeping this share of it."""
        for name, p in self.live.items():
            p.copy_((self.average if average else self.master)[name])
            if keep is not None:
                self.average[name].lerp_(self.master[name], 1 - keep)

    def state(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint keeps."""
        return {"master": {n: p.detach() for n, p in self.master.items()}, "average": self.average}

    @torch.no_grad()
    def load(self, state: dict[str, dict[str, Tensor]]) -> None:
        """The inverse of `state`; raises KeyError when the checkpoint is of another network."""
        for name in self.master:
            self.master[name].copy_(state["master"][name])
            self.average[name].copy_(state["average"][name])
        self.push()
