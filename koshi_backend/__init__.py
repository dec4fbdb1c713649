# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything about pictures: schedules, shots, models, motion, feedback, the frame chain, video files.

`import koshi_backend` is instant and loads no torch; the names below are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .api import create_pipeline as create_pipeline
    from .api import generate_animation as generate_animation
    from .api import generate_image as generate_image
    from .deforum_calls import Flux1DeforumPipeline as Flux1DeforumPipeline
    from .deforum_calls import KoshiFlux as KoshiFlux
    from .deforum_calls import create_flux1_pipeline as create_flux1_pipeline
    from .errors import KoshiError as KoshiError
    from .feedback import FeedbackConfig as FeedbackConfig
    from .models.registry import FluxVersion as FluxVersion
    from .motion.engines import Flux1MotionEngine as Flux1MotionEngine
    from .motion.engines import Flux2MotionEngine as Flux2MotionEngine
    from .pipeline import Pipeline as Pipeline
    from .shot import Shot as Shot
    from .shot import load_shot as load_shot

_HOME = {
    "create_flux1_pipeline": ".deforum_calls",
    "create_pipeline": ".api",
    "generate_animation": ".api",
    "generate_image": ".api",
    "FeedbackConfig": ".feedback",
    "Flux1DeforumPipeline": ".deforum_calls",
    "Flux1MotionEngine": ".motion.engines",
    "Flux2MotionEngine": ".motion.engines",
    "FluxVersion": ".models.registry",
    "KoshiError": ".errors",
    "KoshiFlux": ".deforum_calls",
    "Pipeline": ".pipeline",
    "Shot": ".shot",
    "load_shot": ".shot",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .environment import prepare

    prepare()  # every name below leads to torch
    return getattr(importlib.import_module(_HOME[name], __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
