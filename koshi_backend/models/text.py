# SPDX-License-Identifier: GPL-3.0-or-later
"""Klein's text encoding: hidden states of a Qwen3 language model, stacked.

The states after a few chosen layers are all that is used, so the layers above them are not even loaded.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, Qwen3Model

from ..errors import KoshiError, problem, raise_problems
from ..quiet import quiet

log = logging.getLogger(__name__)

_CACHE_SIZE = 64  # prompts; one of Klein 4B's takes 512 x 7680 x 2 bytes = 7.9 MB


@dataclass(frozen=True)
class TextSettings:
    """layers: states after so many layers are stacked along the channels. length: tokens, padded or cut to it."""

    layers: tuple[int, ...] = (9, 18, 27)
    length: int = 512


def read_settings(folder: Path) -> TextSettings:
    """A model folder's own settings (koshi.json), else Klein's."""
    file = folder / "koshi.json"
    if not file.is_file():
        return TextSettings()
    try:
        written = json.loads(file.read_text(encoding="utf-8"))
        layers = tuple(int(k) for k in written.get("text_encoder_out_layers", TextSettings.layers))
        length = int(written.get("max_sequence_length", TextSettings.length))
        if not layers or min(layers) < 1 or not 1 <= length <= 100_000:
            raise ValueError(f"layers {list(layers)} and {length} tokens are no sensible settings")
    except (ValueError, TypeError, AttributeError) as error:
        raise KoshiError("bad_model", f"{file} cannot be understood: {error}.") from error
    return TextSettings(layers, length)


class TextEncoder:
    """Prompts -> [1, length, layers * width] on `device` in `dtype`."""

    def __init__(self, folder: Path, device: torch.device, dtype: torch.dtype) -> None:
        self.settings = read_settings(folder)
        self.device = device
        self.tokenizer = _load_tokenizer(folder / "tokenizer")
        self.model = _load_qwen(folder / "text_encoder", max(self.settings.layers), dtype).to(device)
        self._cache: dict[str, Tensor] = {}

    @torch.inference_mode()
    def encode(self, prompt: str) -> Tensor:
        """Encode one prompt; the last few are remembered."""
        if prompt not in self._cache:
            while len(self._cache) >= _CACHE_SIZE:
                self._cache.pop(next(iter(self._cache)))
            self._cache[prompt] = self._encode(prompt)
        return self._cache[prompt]

    def _encode(self, prompt: str) -> Tensor:
        chat = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,
        )
        spare = len(self.tokenizer(chat)["input_ids"]) - self.settings.length
        if spare > 0:
            log.warning("the prompt is %d tokens too long for this model; its end is not used: %.60s", spare, prompt)
        tokens = self.tokenizer(
            chat, padding="max_length", truncation=True, max_length=self.settings.length, return_tensors="pt"
        )
        # The pads are masked inside the language model, yet all positions go to the transformer: it was trained so.
        states = self.model(
            input_ids=tokens["input_ids"].to(self.device),
            attention_mask=tokens["attention_mask"].to(self.device),
            output_hidden_states=True,
            use_cache=False,
        ).hidden_states
        return torch.cat([states[k] for k in self.settings.layers], dim=-1)


def _load_tokenizer(folder: Path) -> Any:
    """The tokenizer, tried on a word: its chat template is only read when it is used."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False, enable_thinking=False)
    except Exception as error:  # JSON, Jinja, Rust and KeyErrors, depending on which file is damaged
        log.warning("tokenizer in %s", folder, exc_info=True)
        raise _unreadable("tokenizer", folder, error) from error
    return tokenizer


def _unreadable(what: str, folder: Path, error: Exception) -> KoshiError:
    return KoshiError(
        "bad_model_file",
        f"The {what} in {folder} cannot be read: a file is damaged or cut short ({type(error).__name__}).",
        "Fetch the model's files again.",
    )


def _load_qwen(folder: Path, layers: int, dtype: torch.dtype) -> nn.Module:
    """The first `layers` layers, without the final norm that the used states never pass."""
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unreadable("text encoder", folder, error) from error
    if config.num_hidden_layers < layers:
        raise KoshiError(
            "bad_model",
            f"The text encoder in {folder} has {config.num_hidden_layers} layers; {layers} are needed.",
        )
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]
    try:
        with quiet():  # its report lists the left-out layers as a fault
            model, report = Qwen3Model.from_pretrained(
                folder, config=config, dtype=dtype, local_files_only=True, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise _unreadable("text encoder", folder, error) from error
    faults = [problem(name, "this tensor is missing.") for name in report["missing_keys"]]
    faults += [problem(str(name), "this tensor has the wrong shape.") for name in report["mismatched_keys"]]
    faults += [
        problem(name, "Koshi does not know this tensor.")
        for name in report["unexpected_keys"]
        if not _is_spare(name, layers)
    ]
    raise_problems("bad_model", f"The text encoder in {folder}", faults)
    model.norm = nn.Identity()  # so that the state after the last kept layer is the raw one
    return model.eval().requires_grad_(False)



def _is_spare(name: str, layers: int) -> bool:
    """Tensors of the full language model that lie beyond what is used."""
    layer = re.match(r"(?:model\.)?layers\.(\d+)\.", name)
    return name in ("lm_head.weight", "model.norm.weight") or (layer is not None and int(layer[1]) >= layers)
