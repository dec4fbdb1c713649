# SPDX-License-Identifier: GPL-3.0-or-later
"""LoRAs that prompts name, `<lora:ink:0.8>`, as LoRAs of a shot, and back.

There a prompt names them with their weights, for as long as it counts itself. In a shot each has one schedule.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from .. import expressions
from ..errors import KoshiError
from ..expressions import ExpressionError
from ..lora.file import open_lora
from ..lora.uses import LARGEST
from ..shot import Shot
from .draft import Draft

FOLDERS = ("", "loras", "lora", "Lora", "models/Lora")  # beside the settings
WORD = re.compile(r"<(?:lora|lyco):([^:<>]+)((?::(?:`[^`]*`|[^<>`])*)?)>")
_FIRST = re.compile(r"\s*:\s*(?:unet\s*=\s*)?(`[^`]*`|[^:`]*)")


def carry_loras(draft: Draft, key: str, texts: Mapping[int, str]) -> None:
    """Put the LoRAs that texts by frame name into the shot; what cannot be is reported."""
    frames = sorted(texts)
    found: dict[str, list[float]] = {}
    for place, frame in enumerate(frames):
        begin, end = (frame if place else 0), (frames[place + 1] if place + 1 < len(frames) else draft.frames)
        for word in WORD.finditer(texts[frame]):
            column = found.setdefault(word[1].strip(), [0.0] * draft.frames)
            for index in range(begin, min(end, draft.frames)):
                column[index] += _weight(draft, key, word, index)
    listed = []
    for name, column in found.items():
        if (file := _file(draft, key, name)) is not None and any(column):
            listed.append({"file": file, "weight": written(column)})
    if listed:
        draft.shot["loras"] = listed


def without_words(text: str) -> str:
    """A prompt without its words for LoRAs."""
    return re.sub(r"\s+", " ", WORD.sub("", text)).strip() if WORD.search(text) else text


def written(column: Sequence[float]) -> float | str | list[float]:
    """A number, steps where it holds for a while, or a number for each frame."""
    if len(set(column)) == 1:
        return column[0]
    begins = [k for k in range(len(column)) if k == 0 or column[k] != column[k - 1]]
    if len(begins) > len(column) // 2:
        return list(column)
    return "step; " + ", ".join(f"{k}:({column[k]:.12g})" for k in begins)


def with_words(shot: Shot, prompts: Mapping[str, str]) -> dict[str, str]:
    """Prompts by frame with the shot's LoRAs in their words: one more prompt wherever a weight changes."""
    if not shot.loras:
        return dict(prompts)
    weights = [values for _, values in shot.lora_weights]
    changes = {k for values in weights for k in range(1, shot.frames) if values[k] != values[k - 1]}
    places = sorted({*map(int, prompts), *changes})
    out, text = {}, ""
    for place in places:
        text = prompts.get(str(place), text)
        at = min(place, shot.frames - 1)
        words = [
            f"<lora:{Path(lora.file).stem}:{values[at]:.6g}>"
            for lora, values in zip(shot.loras, weights, strict=True)
            if values[at] != 0.0
        ]
        head, marker, negative = text.partition("--neg")
        out[str(place)] = " ".join(part for part in (head.strip(), *words, f"{marker}{negative}") if part)
    return out


def _weight(draft: Draft, key: str, word: re.Match[str], index: int) -> float:
    """What a word says at a frame: the first number in it; with two, that is the network's, and the other the text
    encoder's."""
    told = _FIRST.match(word[2])
    text = told[1].strip().strip("`") if told else ""
    try:
        names = {"t": index, "max_f": draft.frames - 1, "s": draft.seed}
        value = float(expressions.read(text, tuple(names)).value(names)) if text else 1.0
    except ExpressionError:
        draft.report.leave(key, word[0], "its weight cannot be read; 1 is taken.")
        return 1.0
    if abs(value) > LARGEST:
        draft.report.leave(key, word[0], f"Koshi takes weights from {-LARGEST:g} to {LARGEST:g}.")
    return min(max(value, -LARGEST), LARGEST)


def _file(draft: Draft, key: str, name: str) -> str | None:
    """The LoRA's file as the shot has to say it; None, and a line in the report, without one that Koshi can wear."""
    named = name if name.endswith(".safetensors") else f"{name}.safetensors"
    for folder in FOLDERS:
        path = draft.folder / folder / named
        if not path.is_file():
            continue
        try:
            lora = open_lora(path)
        except KoshiError as error:
            draft.report.leave(key, f"<lora:{name}>", f"{error.message} It is taken out.")
            return None
        if lora.family is None and (lora.title or not lora.names.modules):
            what = f"a LoRA for {lora.title}" if lora.title else "no LoRA of a FLUX model"
            draft.report.leave(key, f"<lora:{name}>", f"{path} is {what}, and is taken out.")
            return None
        if lora.title:
            draft.report.note(f"{named} is a LoRA for {lora.title}: the shot needs a model of that family.")
        return draft.file(str(Path(folder) / named))
    why = f"there is no {named} beside the settings, nor in a folder loras there: it is taken out. Name it in loras."
    draft.report.leave(key, f"<lora:{name}>", why)
    return None
