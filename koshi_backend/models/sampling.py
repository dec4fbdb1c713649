# SPDX-License-Identifier: GPL-3.0-or-later
"""Flow times of the FLUX families and their Euler sampler.

A latent at flow time t is x_t = t * noise + (1 - t) * picture; the network predicts v = noise - picture.
All families space their steps evenly and then shift them towards the noise; they differ in how far (`Mu`).
A flow map predicts the mean of v between two times instead, with which the same Euler step is exact.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from ..errors import Cancelled

# The shift's logarithm from the number of output tokens (references excluded) and of steps.
Mu = Callable[[int, int], float]
Rounding = Literal["exact", "bfl", "diffusers"]


def no_shift(tokens: int, steps: int) -> float:
    """FLUX.1 schnell: the steps stay evenly spaced, whatever the size."""
    return 0.0


def linear_mu(tokens: int, steps: int) -> float:
    """FLUX.1 dev, Krea-dev and Kontext-dev: the line through .5 at 256 tokens and 1.15 at 4096, for any steps.

    Source: black-forest-labs/flux sampling.py get_schedule.
    """
    return 0.5 + (1.15 - 0.5) * (tokens - 256) / (4096 - 256)


def empirical_mu(tokens: int, steps: int) -> float:
    """FLUX.2: linear in the steps between fits at 10 and 200.

    Source: black-forest-labs/flux2 sampling.py compute_empirical_mu.
    """
    at_200 = 0.00016927 * tokens + 0.45666666
    if tokens > 4300:
        return at_200
    at_10 = 8.73809524e-05 * tokens + 1.89833333
    slope = (at_200 - at_10) / 190.0
    return slope * steps + at_200 - 200.0 * slope


def constant_mu(tokens: int, steps: int) -> float:
    """FLUX.3: a shift of 6.93, whatever the size. Source: diffusers modular_pipelines/flux3/before_denoise.py."""
    return math.log(6.93)


def shift(u: float, mu: float) -> float:
    """Flow time of the unshifted time u in 0..1: e^mu / (e^mu + 1/u - 1)."""
    if u <= 0.0:
        return 0.0
    return math.exp(mu) / (math.exp(mu) + 1.0 / u - 1.0)


def unshift(t: float, mu: float) -> float:
    """The inverse of `shift`."""
    if t <= 0.0:
        return 0.0
    return 1.0 / (1.0 + math.exp(mu) * (1.0 / t - 1.0))


def flow_times(tokens: int, steps: int, start: float = 1.0, mu: Mu = empirical_mu) -> list[float]:
    """steps + 1 times from `start` down to 0, evenly spaced in unshifted time. mu: the family's shift.

    start = 1 gives the family's own table. A smaller start re-spaces all the steps below it, so that every
    strength is a different result; a suffix of the 4-step table knows only .958, .884 and .718 (512 x 512).
    """
    far = mu(tokens, steps)
    first = unshift(start, far)
    times = [shift(first * (1.0 - k / steps), far) for k in range(steps + 1)]
    times[0] = start  # exact, without the round trip through the shift
    return times


def rounded(t: float, rounding: Rounding) -> float:
    """The flow time that the network is told at flow time t.

    "exact": t itself. "bfl", "diffusers": what is left of it where these compute in bfloat16, for who has to draw their
    very pictures. At .958085, for one, the network is told .958085, .956 or .960. The steps are never rounded.
    """
    if rounding == "exact":
        return t
    # black-forest-labs/flux2 casts the time, then multiplies by 1000; diffusers casts the thousandfold first.
    told = torch.tensor(t) if rounding == "bfl" else torch.tensor(t * 1000).bfloat16() / 1000
    return float(told.bfloat16() * 1000) / 1000


def euler(
    velocity: Callable[[Tensor, float], Tensor],
    x: Tensor,
    times: list[float],
    *,
    held: tuple[Tensor, Tensor, Tensor] | None = None,
    on_step: Callable[[int, int], None] | None = None,
    on_prediction: Callable[[int, int, Tensor], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Tensor:
    """Integrate x from times[0] to 0.

    velocity(x, t): the network's prediction, shaped like x.
    held: (picture, noise, release) for parts that start later than the rest: where `release` (a time per element,
        broadcastable to x) is below the present time, x is put back on the straight line between picture and noise;
        what is released at 0 comes out as it was.
    on_step(k, n): called before each of the n steps. cancelled(): asked before each step; Cancelled is raised.
    on_prediction(k, n, picture): called after each step's evaluation with the picture it points to, x - t * v.
    """
    count = len(times) - 1
    for k, (t, after) in enumerate(itertools.pairwise(times)):
        if cancelled is not None and cancelled():
            raise Cancelled
        if on_step is not None:
            on_step(k, count)
        v = velocity(x, t)
        if on_prediction is not None:
            on_prediction(k, count, x - t * v)
        x = x + (after - t) * v
        if held is not None:
            picture, noise, release = held
            line = after * noise + (1.0 - after) * picture
            x = torch.where(release <= after + 1e-9, line, x)
    return x
