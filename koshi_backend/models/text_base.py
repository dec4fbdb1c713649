# SPDX-License-Identifier: GPL-3.0-or-later
"""What the text sides of all families share: prompts in, states out, and how their networks are loaded.

A network is built without memory and then given its weights one tensor at a time, straight from the mapped files.
What a family does not use (upper layers, heads, a vision tower) is never read.
"""

from __future__ import annotations

import json
import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel

from ..errors import KoshiError, problem, raise_problems
from .checkpoint import FETCH_AGAIN, Part
from .tensor_files import TensorFiles

log = logging.getLogger(__name__)

# Names of a language model: newer and older vision-language files, then a language model on its own.
_LANGUAGE = re.compile(r"^(model\.language_model|language_model\.model|language_model|model)\.")
_CACHE_SIZE = 64  # prompts; one of Klein 4B's takes 512 x 7680 x 2 bytes = 7.9 MB, one of FLUX.2 dev's 15.7 MB


class TextState(NamedTuple):
    """Encoded prompts. states: [B, length, channels]. pooled: [B, width], None where a family has no such thing."""

    states: Tensor
    pooled: Tensor | None = None


@dataclass(frozen=True)
class TextSettings:
    """layers: states after so many layers are stacked along the channels. length: tokens, padded or cut to it."""

    layers: tuple[int, ...] = (9, 18, 27)
    length: int = 512


def read_settings(folder: Path, default: TextSettings = TextSettings()) -> TextSettings:
    """A model folder's own settings (koshi.json), else the family's; Klein's if that is not named."""
    file = folder / "koshi.json"
    if not file.is_file():
        return default
    try:
        written = json.loads(file.read_text(encoding="utf-8"))
        layers = tuple(int(k) for k in written.get("text_encoder_out_layers", default.layers))
        length = int(written.get("max_sequence_length", default.length))
        if not layers or min(layers) < 1 or not 1 <= length <= 100_000:
            raise ValueError(f"layers {list(layers)} and {length} tokens are no sensible settings")
    except (ValueError, TypeError, AttributeError) as error:
        raise KoshiError("bad_model", f"{file} cannot be understood: {error}.") from error
    return TextSettings(layers, length)


class PromptEncoder(ABC):
    """Prompts -> states, on the device of the network. The last few prompts are remembered."""

    def __init__(self) -> None:
        self._cache: dict[str, TextState] = {}

    @torch.inference_mode()
    def encode(self, prompts: list[str]) -> TextState:
        """Encode at least one prompt.

        Each runs on its own, so that its state does not depend, not even in the last bit, on the others.
        """
        found = [self._remembered(prompt) for prompt in prompts]
        pooled = [state.pooled for state in found if state.pooled is not None]
        return TextState(torch.cat([state.states for state in found]), torch.cat(pooled) if pooled else None)

    def _remembered(self, prompt: str) -> TextState:
        if prompt not in self._cache:
            state = self._encode(prompt)
            while len(self._cache) >= _CACHE_SIZE:
                self._cache.pop(next(iter(self._cache)))
            self._cache[prompt] = state
        return self._cache[prompt]

    @abstractmethod
    def _encode(self, prompt: str) -> TextState:
        """One prompt, in inference mode."""


# --- tokens ----------------------------------------------------------------------------------------------------


class Tokens(NamedTuple):
    """Of one text. ids, mask: [1, length], mask 0 where padded. lost: words of the prompt that did not fit."""

    ids: Tensor
    mask: Tensor
    cut: bool
    lost: int


def tokenize(tokenizer: Any, text: str, prompt: str, length: int, special: bool = True) -> Tokens:
    """Tokens of `text`, which holds `prompt`, padded or cut to `length`.

    special: add the special tokens of the tokenizer; a text made by a chat template has them already.
    """
    rows = tokenizer(
        text,
        padding="max_length",
        truncation=True,
        max_length=length,
        add_special_tokens=special,
        return_overflowing_tokens=True,  # what does not fit becomes further rows
        return_offsets_mapping=True,
        return_tensors="pt",
    )
    cut = len(rows["input_ids"]) > 1
    read = int(rows["offset_mapping"][0, :, 1].max()) if cut else len(text)
    words = prompt.strip()  # as some templates do
    end = text.rfind(words) + len(words)
    return Tokens(rows["input_ids"][:1], rows["attention_mask"][:1], cut, len(text[read:end].split()))


def warn_if_cut(tokens: Tokens, prompt: str) -> None:
    """Say what of a prompt the model does not see."""
    if tokens.cut:
        lost = f"its last {tokens.lost} words are not used" if tokens.lost else "the marks after it are cut off"
        log.warning("the prompt is too long for this model's %d tokens: %s: %.60s", tokens.ids.shape[1], lost, prompt)


def load_tokenizer(folder: Path, chat: Callable[[Any, str], str] = lambda _, prompt: prompt) -> Any:
    """The tokenizer, tried on a word: a chat template, for one, is only read when it is used.

    chat: makes the text that is encoded from a tokenizer and a prompt.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        tokenize(tokenizer, chat(tokenizer, "a"), "a", 4)
    except Exception as error:  # JSON, Jinja, Rust and KeyErrors, depending on which file is damaged
        log.warning("tokenizer in %s", folder, exc_info=True)
        raise _unreadable("tokenizer", folder, error) from error
    return tokenizer


def check_vocabulary(tokenizer: Any, folder: Path, rows: int) -> None:
    """Refuse a tokenizer of another model: on a GPU, a token without an embedding stops the whole process."""
    if len(tokenizer) > rows:
        raise KoshiError(
            "bad_model",
            f"The tokenizer in {folder} knows {len(tokenizer)} tokens, the text encoder only {rows}.",
            f"They belong to different models. {FETCH_AGAIN}",
        )


def stacked_states(model: Any, tokens: Tokens, layers: Sequence[int], places: Tensor | None = None) -> TextState:
    """The states after some of a language model's layers, stacked along the channels.

    Pads are masked inside of it, yet all positions go to the transformer: all families were trained so.
    places: positions [1, length], where they are not simply counted.
    """
    device = model.embed_tokens.weight.device
    states = model(
        input_ids=tokens.ids.to(device),
        attention_mask=tokens.mask.to(device),
        output_hidden_states=True,
        use_cache=False,
        **({} if places is None else {"position_ids": places.to(device)}),
    ).hidden_states
    return TextState(torch.cat([states[k] for k in layers], dim=-1))


# --- networks --------------------------------------------------------------------------------------------------


def read_config(folder: Path, *kinds: type[PretrainedConfig]) -> Any:
    """config.json of a text encoder of one of the `kinds`."""
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except StrictDataclassError as error:  # a field of the wrong kind
        raise KoshiError(
            "bad_model",
            f"{folder / 'config.json'} cannot be used: {' '.join(str(error).split())}.",
            FETCH_AGAIN,
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable("text encoder", folder, error) from error
    if not isinstance(config, kinds):
        raise KoshiError(
            "bad_model",
            f"The text encoder in {folder} is of the kind {config.model_type!r}, not {kinds[0].model_type!r}.",
            "Name a folder of the right family.",
        )
    return config


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
    name = _LANGUAGE.sub("", name)
    layer = re.match(r"layers\.(\d+)\.", name)
    if name in ("lm_head.weight", "norm.weight") or (layer is not None and int(layer[1]) >= layers):
        return None
    return name


def load_language_model(
    kind: type[PreTrainedModel],
    config: Any,
    part: Part,
    folder: Path,
    weights: Mapping[str, Path],
    layers: int,
    device: torch.device,
    dtype: torch.dtype,
    eyes: str = "(?!)",
) -> Any:
    """The first `layers` layers of a language model, without its final norm, so that the last state is the raw one.

    part: as checkpoint.py tells it in a file. weights: files that go before the folder, by the folder's name.
    eyes: as `language_name` takes it; by default there are none.
    """
    keep_layers(config, layers, folder)
    model = build(kind, config, folder)
    model.norm = nn.Identity()
    path = weights.get(folder.name, folder)
    fill(model, path, part, lambda name: language_name(name, layers, eyes), device, dtype)
    model.rotary_emb = type(model.rotary_emb)(config=config).to(device)  # computed, in no file
    return model


def build(kind: type[PreTrainedModel], config: Any, folder: Path) -> Any:
    """A network without memory for its weights."""
    try:
        with torch.device("meta"):
            return kind(config)
    except (ValueError, TypeError, RuntimeError, ArithmeticError, LookupError, AttributeError) as error:
        raise _unreadable("text encoder", folder, error) from error


def fill(
    net: nn.Module,
    path: Path,
    part: Part,
    plain: Callable[[str], str | None],
    device: torch.device,
    dtype: torch.dtype,
    exact: Callable[[str], bool] = lambda name: False,
) -> None:
    """Give a network its weights, in `dtype` (float32 where `exact` says so), and freeze it.

    path: a folder of shards, or a file, which may hold other parts of a model as well. part: which it is.
    plain: a tensor's name without the prefixes that differ between files and versions; None for what is known
    but not used, which is never read. Missing, unknown and misshapen tensors are all listed.
    """
    files = TensorFiles(path, part)
    stored = {short: name for name in files.shapes if (short := plain(name)) is not None}
    wanted = {name: plain(name) or name for name in net.state_dict()}  # two names may be one tensor
    shapes = {wanted[name]: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    faults: list[dict[str, Any]] = []
    for short, shape in shapes.items():
        if short not in stored:
            faults.append(problem(short, "this tensor is missing."))
        elif (found := files.shapes[stored[short]]) != shape:
            faults.append(problem(stored[short], f"the tensor has shape {found}, not {shape}."))
        elif not files.is_floating(stored[short]):
            faults.append(problem(stored[short], "the tensor holds whole numbers, which Koshi does not read."))
    faults += [
        problem(name, "Koshi does not know this tensor.") for short, name in stored.items() if short not in shapes
    ]
    raise_problems("bad_model", f"The text encoder in {path}", faults)
    read = {short: files.read(stored[short]).to(device, torch.float32 if exact(short) else dtype) for short in shapes}
    net.load_state_dict({name: read[short] for name, short in wanted.items()}, strict=True, assign=True)
    net.eval().requires_grad_(False)


def _unreadable(what: str, folder: Path, error: Exception) -> KoshiError:
    return KoshiError(
        "bad_model_file",
        f"The {what} in {folder} cannot be read: a file is damaged or cut short ({type(error).__name__}).",
        FETCH_AGAIN,
    )
