# SPDX-License-Identifier: GPL-3.0-or-later
"""The names under which models are also known: the founding documents', the hub's, FluxVersion's."""

from __future__ import annotations

import re
from pathlib import Path

from .errors import KoshiError
from .models.registry import MODELS, FluxVersion

_SHORT = {
    "fluxschnell": "flux.1-schnell",
    "fluxdev": "flux.1-dev",
    "fluxkrea": "flux.1-krea-dev",
    "fluxkontext": "flux.1-kontext-dev",
    "fluxklein": "flux.2-klein-4b",
}


def model_name(model: object) -> str:
    """The registry's name of a model, or the path that it is.

    Known are the registry's names however they are spelled (FLUX_1_DEV, flux1-dev, black-forest-labs/FLUX.1-dev) and
    short ones: flux-schnell, flux-dev, flux-krea, flux-kontext, flux-klein. A folder of such a name goes before it.
    Anything else is returned as it is. Raises KoshiError("bad_value") for what is no name.
    """
    if isinstance(model, FluxVersion):
        return str(model.value)
    if not isinstance(model, (str, Path)):
        found = type(model).__name__
        raise KoshiError("bad_value", f"The model is a {found}.", "Give a FluxVersion, a name or a path.")
    name = str(model)
    if name in MODELS or _is_there(name):
        return name
    letters = _letters(name.lower().removeprefix("black-forest-labs/"))
    return {_letters(known): known for known in MODELS}.get(letters) or _SHORT.get(letters, name)


def _letters(name: str) -> str:
    return re.sub(r"[\s._-]", "", name)


def _is_there(name: str) -> bool:
    try:
        return bool(name.strip()) and Path(name).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # too long, with a NUL, of an unknown user
        return False
