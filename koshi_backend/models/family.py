# SPDX-License-Identifier: GPL-3.0-or-later
"""From a folder in diffusers layout to the model of its family."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import torch

from ..errors import KoshiError
from .flux1 import Flux1Transformer
from .flux1_model import Flux1Model
from .flux2_model import Flux2Model
from .loader import find_family, load_autoencoder, load_transformer
from .model import FluxModel, out_of_memory_explained
from .registry import Traits, folder_traits
from .text import TextEncoder
from .text_base import PromptEncoder
from .text_flux1 import Flux1TextEncoder
from .text_mistral import MistralTextEncoder

log = logging.getLogger(__name__)

SCHNELL_TOKENS = 256  # of T5; all other FLUX.1 models read 512


def load_family(
    folder: Path, device: torch.device, dtype: torch.dtype, identity: str, traits: Traits | None = None
) -> FluxModel:
    """Load a model. The tensors tell the family; traits, else the folder, what tensors cannot tell.

    Raises KoshiError for missing or unfit files, parts that do not belong together, and too little memory.
    """
    begin, traits = time.monotonic(), traits or folder_traits(folder)
    with out_of_memory_explained("loading the model"):
        model: FluxModel
        kind, parts = find_family(folder / "transformer"), {"references": traits.references}
        if kind is Flux1Transformer:
            net = load_transformer(folder / "transformer", device, dtype, Flux1Transformer)
            text = Flux1TextEncoder(folder, device, dtype, 512 if net.config.guidance else SCHNELL_TOKENS)
            model = Flux1Model(net, load_autoencoder(folder / "vae", device, dtype), text, identity, **parts)
        else:
            model = Flux2Model(
                load_transformer(folder / "transformer", device, dtype),
                load_autoencoder(folder / "vae", device, dtype),
                _flux2_text(folder, device, dtype),
                identity,
                contrasted=traits.contrasted,
                **parts,
            )
    if 4 * model.autoencoder.config.channels != model.channels:
        raise KoshiError(
            "bad_model",
            f"The parts in {folder} are of two families: the transformer takes {model.channels} channels, the "
            f"autoencoder makes {4 * model.autoencoder.config.channels}.",
            "Keep all parts of a model in one folder.",
        )
    log.info("loaded %s in %.1f s on %s as %s", folder, time.monotonic() - begin, device, dtype)
    return model


def _flux2_text(folder: Path, device: torch.device, dtype: torch.dtype) -> PromptEncoder:
    """Klein reads with Qwen3, dev with Mistral."""
    config = folder / "text_encoder" / "config.json"
    try:
        kind = str(json.loads(config.read_text(encoding="utf-8")).get("model_type", "")) if config.is_file() else ""
    except (OSError, ValueError, AttributeError) as error:
        raise KoshiError(
            "bad_model_file", f"{config} is damaged or cut short.", "Fetch the model's files again."
        ) from error
    return (MistralTextEncoder if kind.startswith("mistral") else TextEncoder)(folder, device, dtype)
