# SPDX-License-Identifier: GPL-3.0-or-later
"""Text encoding by the lower layers of a language model, whose states after a few of them are stacked.

FLUX.2 Klein reads with Qwen3, FLUX.2 dev with Mistral, FLUX.3 with Qwen3-VL; their files say in what they differ.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from ..errors import KoshiError
from .checkpoint import Part
from .checkpoint_contents import LANGUAGE
from .text_base import (
    PromptEncoder,
    TextSettings,
    TextState,
    check_vocabulary,
    load_tokenizer,
    read_settings,
)
from .text_networks import build, prepare, read_config


class LanguageEncoder(PromptEncoder):
    """Prompts -> [B, length, layers * width] on `device` in `dtype`.

    kind: the network's class. configs: of its configuration, the usual one first; a vision-language model's holds the
    language model's. part: as checkpoint.py tells it in a file. eyes: as `language_name` takes it; by default there are
    none. default: settings, where the folder says nothing.

    folder: a model in diffusers layout, with text_encoder and tokenizer.
    weights: where the encoder's weights are, by the folder's name that they would be in; those not named are there.
    """

    kind: ClassVar[type[PreTrainedModel]]
    configs: ClassVar[tuple[type[PretrainedConfig], ...]]
    part: ClassVar[Part] = "language"
    eyes: ClassVar[str] = "(?!)"
    default: ClassVar[TextSettings]

    def __init__(
        self, folder: Path, device: torch.device, dtype: torch.dtype, weights: Mapping[str, Path] = MappingProxyType({})
    ) -> None:
        super().__init__(device, dtype)
        self.settings = read_settings(folder, self.default)
        self.tokenizer = load_tokenizer(folder / "tokenizer", self.chat)
        self.model = self._load(folder / "text_encoder", weights, device, dtype)
        check_vocabulary(self.tokenizer, folder, self.model.embed_tokens.num_embeddings)

    @staticmethod
    @abstractmethod
    def chat(tokenizer: Any, prompt: str) -> str:
        """The text that is encoded for a prompt."""

    def _load(self, folder: Path, weights: Mapping[str, Path], device: torch.device, dtype: torch.dtype) -> Any:
        """The layers up to the last one used, without the final norm, so that the last state is the raw one."""
        layers = max(self.settings.layers)
        config = read_config(folder, *self.configs)
        config = getattr(config, "text_config", config)
        keep_layers(config, layers, folder)
        model = build(self.kind, config, folder)
        model.norm = nn.Identity()
        path = weights.get(folder.name, folder)
        plain = partial(language_name, layers=layers, eyes=self.eyes)
        self._unread.append(prepare(model, path, self.part, plain, dtype))
        model.rotary_emb = type(model.rotary_emb)(config=config).to(device)  # computed, in no file
        return model

    def _facts(self) -> list[Any]:
        return [list(self.settings.layers)]

    def _run(self, given: list[Tensor]) -> TextState:
        """The states after the chosen layers, stacked along the channels.

        Pads are masked inside of the model, yet all positions go to the transformer: all families were trained so.
        given: ids, mask, and positions [1, length] where they are not simply counted.
        """
        ids, mask, *places = (part.to(self.model.embed_tokens.weight.device) for part in given)
        states = self.model(
            input_ids=ids,
            attention_mask=mask,
            output_hidden_states=True,
            use_cache=False,
            **({"position_ids": places[0]} if places else {}),
        ).hidden_states
        return TextState(torch.cat([states[k] for k in self.settings.layers], dim=-1))


def keep_layers(config: Any, layers: int, folder: Path) -> None:
    """Make a language model's configuration end after the last layer that is used."""
    if config.num_hidden_layers < layers:
        raise KoshiError(
            "bad_model",
            f"The text encoder in {folder} has {config.num_hidden_layers} layers; {layers} are needed.",
        )
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]


def language_name(name: str, layers: int, eyes: str) -> str | None:
    """A tensor's name in a language model of `layers` layers, which may be a vision-language model's.

    None for what is known and not used: the parts that `eyes` (a pattern) names, the head, the last norm and the layers
    above the used ones.
    """
    if re.match(rf"(model\.)?({eyes})\.", name):
        return None
    name = LANGUAGE.sub("", name)
    layer = re.match(r"layers\.(\d+)\.", name)
    if name in ("lm_head.weight", "norm.weight") or (layer is not None and int(layer[1]) >= layers):
        return None
    return name
