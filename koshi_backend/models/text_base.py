# SPDX-License-Identifier: GPL-3.0-or-later
"""What the text sides of all families share: prompts in, states out, and the tokens between."""

from __future__ import annotations

import hashlib
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoTokenizer

from ..errors import KoshiError
from .checkpoint import FETCH_AGAIN
from .text_states import PromptStore

log = logging.getLogger(__name__)

_CACHE_SIZE = 64  # prompts; one of Klein 4B's takes 512 x 7680 x 2 bytes = 7.9 MB, one of FLUX.2 dev's 15.7 MB
_FORMAT = 1  # raise it whenever the same tokens would be encoded otherwise


class Unread(NamedTuple):
    """A network without its weights. fill: gives it them, on a device. size: bytes that they will take on a device, of
    word embeddings and of all the rest."""

    fill: Callable[[torch.device], None]
    size: Callable[[torch.device], tuple[int, int]]


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
    """Prompts -> states. The last few prompts are remembered, and more of them on disk where there is a store.

    The networks have no weights before the first prompt that is not known, unless `read` is called.
    device: where the weights are read to, and the states are. store: with `identity`, a hash of the encoder's files.
    on_read: is called once, with the networks, after they have got their weights.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._cache: dict[str, TextState] = {}
        self._unread: list[Unread] = []
        self.device, self.reads_to, self.dtype = device, device, dtype
        self.store: PromptStore | None = None
        self.identity = ""
        self.on_read: Callable[[list[nn.Module]], None] | None = None

    @property
    def networks(self) -> list[nn.Module]:
        return [part for part in vars(self).values() if isinstance(part, nn.Module)]

    @property
    def is_read(self) -> bool:
        """Whether the networks have their weights."""
        return not self._unread

    def sizes(self, device: torch.device) -> tuple[int, int]:
        """Bytes that the weights which have not been read will take on a device: word embeddings, and the rest."""
        each = [one.size(device) for one in self._unread]
        return sum(tables for tables, _ in each), sum(rest for _, rest in each)

    def read(self) -> None:
        """Give the networks their weights, if they have none yet."""
        if self._unread:
            with torch.inference_mode(False):  # else nobody could move them later
                for one in self._unread:
                    one.fill(self.reads_to)
                self._unread = []
                if self.on_read is not None:
                    self.on_read(self.networks)

    def forget(self) -> None:
        """Let go of the prompts that are remembered in memory."""
        self._cache.clear()

    @torch.inference_mode()
    def encode(self, prompts: list[str]) -> TextState:
        """Encode at least one prompt.

        Each runs on its own, so that its state does not depend, not even in the last bit, on the others.
        """
        found = [self._remembered(prompt) for prompt in prompts]
        pooled = [state.pooled for state in found if state.pooled is not None]
        return TextState(torch.cat([state.states for state in found]), torch.cat(pooled) if pooled else None)

    @torch.inference_mode()
    def mixed(self, parts: Sequence[tuple[str, float]]) -> TextState:
        """The weighted mean of some prompts' states, [1, length, channels]: texts with shares that sum to 1."""
        if len(parts) == 1:
            return self._remembered(parts[0][0])
        states = [self._remembered(text) for text, _ in parts]
        weights = [weight for _, weight in parts]

        def mean(tensors: list[Tensor]) -> Tensor:
            return sum(w * t.float() for w, t in zip(weights, tensors, strict=True)).to(tensors[0].dtype)  # type: ignore[union-attr]

        pooled = [state.pooled for state in states if state.pooled is not None]
        return TextState(mean([state.states for state in states]), mean(pooled) if pooled else None)

    def key(self, given: Sequence[Tensor]) -> str:
        """Of a prompt's entry in the store. given: what `_tokens` makes of it, in which text, template and length are.

        Versions and the card count, for sums differ in their last bits.
        """
        facts = [_FORMAT, self.identity, type(self).__name__, self._facts(), str(self.dtype), self.device.type]
        facts += [torch.__version__, transformers.__version__]
        if self.device.type == "cuda":
            facts.append(torch.cuda.get_device_name(self.device))
        told = hashlib.sha256(json.dumps(facts).encode())
        for tensor in given:
            told.update(f"{tensor.dtype} {list(tensor.shape)}".encode() + tensor.numpy().tobytes())
        return told.hexdigest()

    def _remembered(self, prompt: str) -> TextState:
        if prompt not in self._cache:
            state = self._encode(prompt)
            while len(self._cache) >= _CACHE_SIZE:
                self._cache.pop(next(iter(self._cache)))
            self._cache[prompt] = state
        return self._cache[prompt]

    def _encode(self, prompt: str) -> TextState:
        """One prompt, in inference mode: from the store where it is known."""
        given = self._tokens(prompt)
        key = self.key(given) if self.store is not None else ""
        known = self.store.get(key) if self.store is not None else None
        if known is not None and "states" in known:
            pooled = known.get("pooled")
            return TextState(known["states"].to(self.device), None if pooled is None else pooled.to(self.device))
        self.read()
        made = self._run(given)
        state = TextState(made.states.to(self.device), None if made.pooled is None else made.pooled.to(self.device))
        if self.store is not None:
            self.store.put(key, {"states": state.states} | ({} if state.pooled is None else {"pooled": state.pooled}))
        return state

    def _facts(self) -> list[Any]:
        """What else a state depends on, beside files and tokens."""
        return []

    @abstractmethod
    def _tokens(self, prompt: str) -> list[Tensor]:
        """What the networks are given for one prompt, in memory."""

    @abstractmethod
    def _run(self, given: list[Tensor]) -> TextState:
        """The networks, in inference mode, on what `_tokens` has made."""


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
        raise unreadable("tokenizer", folder, error) from error
    return tokenizer


def check_vocabulary(tokenizer: Any, folder: Path, rows: int) -> None:
    """Refuse a tokenizer of another model: on a GPU, a token without an embedding stops the whole process."""
    if len(tokenizer) > rows:
        raise KoshiError(
            "bad_model",
            f"The tokenizer in {folder} knows {len(tokenizer)} tokens, the text encoder only {rows}.",
            f"They belong to different models. {FETCH_AGAIN}",
        )


def unreadable(what: str, folder: Path, error: Exception) -> KoshiError:
    return KoshiError(
        "bad_model_file",
        f"The {what} in {folder} cannot be read: a file is damaged or cut short ({type(error).__name__}).",
        FETCH_AGAIN,
    )
