# SPDX-License-Identifier: GPL-3.0-or-later
"""From a model's files to the model of its family."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import torch

from ..errors import KoshiError
from .budget import UNKNOWN, Choice, Job, Offload, weights_of
from .checkpoint import FETCH_AGAIN
from .checkpoint_contents import CELLS, contents
from .flux1 import Flux1Transformer
from .flux1_model import Flux1Model
from .flux2 import Flux2Transformer
from .flux2_model import Flux2Model
from .flux3 import Flux3Transformer
from .flux3_model import Flux3Model
from .identity import text_identity
from .loader import Transformer, open_autoencoder, open_transformer
from .model import FluxModel
from .parts import ModelFiles, folder_files, text_width
from .placement import place
from .quantise import Quantise
from .shortage import out_of_memory_explained
from .text import TextEncoder
from .text_base import PromptEncoder
from .text_flux1 import Flux1TextEncoder
from .text_mistral import MistralTextEncoder
from .text_qwen_vl import QwenVLTextEncoder
from .text_states import PromptStore

log = logging.getLogger(__name__)

SCHNELL_TOKENS = 256  # of T5; all other FLUX.1 models read 512


def load_family(
    files: ModelFiles | Path,
    device: torch.device,
    dtype: torch.dtype,
    identity: str,
    prompts: PromptStore | None = None,
    choice: Choice | None = None,
    quantise: Quantise = "none",
    job: Job = UNKNOWN,
) -> FluxModel:
    """Load a model. The tensors tell the family; the files' traits what tensors cannot tell.

    files: of a model; a folder in diffusers layout will do. prompts: where encoded prompts are kept; the text encoder's
        weights are then read for the first prompt that is not there. choice: of the policy of offloading, from what
        the model needs; "none" where nobody chooses. quantise: the transformer's layers, while they are loaded.
        job: what it is loaded for.
    Raises KoshiError for missing or unfit files, parts that do not belong together, and too little memory. The headers
    of transformer and autoencoder are compared with each other before any weight is read.
    """
    files = folder_files(files) if isinstance(files, Path) else files
    begin, traits = time.monotonic(), files.traits
    with out_of_memory_explained("loading the model", device):
        model: FluxModel
        transformer = open_transformer(files.transformer)
        autoencoder = open_autoencoder(files.autoencoder, files.decoder)
        check_channels(files, transformer.net.config.channels, autoencoder.net.config.channels)
        if files.decoder:
            log.info("%s takes the place of the autoencoder's decoder", files.decoder)
        text = open_text(files, device, dtype, transformer.net)
        _check_text(files, transformer.net.config.context)
        weights = weights_of(transformer, autoencoder, text, device, dtype, quantise, traits.cached)
        need = weights.need(job.at(traits.side))
        policy: Offload = "none" if choice is None else choice(need)
        away = device if policy == "none" else torch.device("cpu")
        text.reads_to = away
        if prompts is None:
            text.read()
        else:
            text.store, text.identity = prompts, text_identity(files)
        parts = transformer.load(away, dtype, quantise), autoencoder.load(device, dtype), text, identity
        shown, contrasted = traits.references, traits.contrasted
        if isinstance(transformer.net, Flux2Transformer):
            model = Flux2Model(*parts, references=shown, contrasted=contrasted, cached=traits.cached)
        else:
            kind = Flux3Model if isinstance(transformer.net, Flux3Transformer) else Flux1Model
            model = kind(*parts, references=shown, contrasted=contrasted)
        model.weights, model.need = weights, need
        place(model, device, policy)
    log.info(
        "loaded %s in %.1f s on %s as %s, offload %s", files.name, time.monotonic() - begin, device, dtype, policy
    )
    return model


def check_channels(files: ModelFiles, transformer: int, autoencoder: int) -> None:
    """Refuse parts of two families. Raises KoshiError("bad_model").

    transformer: channels of a packed latent that it takes. autoencoder: channels of a latent that it makes.
    """
    if CELLS * autoencoder != transformer:
        raise KoshiError(
            "bad_model",
            f"The parts in {files.name} are of two families: the transformer takes {transformer} channels, the "
            f"autoencoder makes {CELLS * autoencoder}.",
            "Keep all parts of a model in one folder.",
        )


def _check_text(files: ModelFiles, context: int) -> None:
    made, _ = text_width(files.settings, files.traits)
    if made not in (0, context):
        raise KoshiError(
            "bad_model",
            f"The parts in {files.name} do not fit: the transformer's {contents(files.transformer).context_name} takes "
            f"{context} channels of text, the text encoder makes {made}.",
            "Keep all parts of a model in one folder.",
        )


def open_text(files: ModelFiles, device: torch.device, dtype: torch.dtype, transformer: Transformer) -> PromptEncoder:
    """The text encoder, compared with its files but not read.

    FLUX.1 reads with CLIP and T5, Klein with Qwen3, FLUX.2 dev with Mistral, FLUX.3 with Qwen3-VL.
    """
    if isinstance(transformer, Flux1Transformer):
        length = 512 if transformer.config.guidance else SCHNELL_TOKENS
        return Flux1TextEncoder(files.settings, device, dtype, length, files.texts)
    if isinstance(transformer, Flux3Transformer):
        return QwenVLTextEncoder(files.settings, device, dtype, files.texts)
    config = files.settings / "text_encoder" / "config.json"
    try:
        kind = str(json.loads(config.read_text(encoding="utf-8")).get("model_type", "")) if config.is_file() else ""
    except (OSError, ValueError, AttributeError) as error:
        raise KoshiError("bad_model_file", f"{config} is damaged or cut short.", FETCH_AGAIN) from error
    reader = MistralTextEncoder if kind.startswith("mistral") else TextEncoder
    return reader(files.settings, device, dtype, files.texts)
