# SPDX-License-Identifier: GPL-3.0-or-later
"""Which LoRAs a shot or a picture wears, and how much of each: the form that documents, calls and commands bring.

No torch: the server process reads this.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from ..errors import KoshiError, problem, raise_problems
from ..models.registry import find_traits
from ..schedules import ScheduleError, evaluate
from ..settings import STRICT
from .file import check_family, open_lora

LARGEST = 10.0  # a weight, to either side; 1 is what the LoRA was trained for


class LoraUse(BaseModel):
    """A LoRA in a shot.

    file: a .safetensors file. weight: a schedule, -10 to 10: how much of what the LoRA has learnt is added. 1 is what
        it was trained for; where it is 0 there is no LoRA.
    """

    model_config = STRICT
    file: Annotated[str, Field(min_length=1)]
    weight: float | str | list[float] | dict[str, str] = 1.0


def check_loras(draft: dict[str, Any], faults: list[dict[str, Any]]) -> None:
    """Whether the files are there and for the model's family, and the weights in range; makes file names absolute."""
    loras = draft.get("loras")
    if not isinstance(loras, list):
        return
    draft["loras"] = loras = [dict(one) if isinstance(one, dict) else one for one in loras]
    for k, one in enumerate(loras):
        if isinstance(one, dict):
            _check_file(f"loras[{k}].file", one, draft, faults)
            check_weight(f"loras[{k}].weight", one.get("weight", 1.0), draft, faults)


def lora_uses(given: Any) -> list[dict[str, Any]]:
    """LoRAs as Python brings them, as a shot has them: a path, (path, weight), {"file", "weight"}, or a list of these.

    Raises KoshiError("bad_value").
    """
    if given is None:
        return []
    single = isinstance(given, (str, os.PathLike, dict)) or _is_pair(given)
    listed = [given] if single else given
    if not isinstance(listed, Sequence):
        raise _unfit(given)
    return [_use(one) for one in listed]


def parse_lora(text: str) -> dict[str, Any]:
    """FILE or FILE:WEIGHT, as `--lora` has it. A weight may be a schedule, with colons in it; so may a path."""
    places = [k for k, letter in enumerate(text) if letter == ":"]
    for place in [len(text), *places]:
        if Path(text[:place]).is_file():
            return {"file": text[:place], **({"weight": _number(text[place + 1 :])} if place < len(text) else {})}
    head, colon, tail = text.rpartition(":")
    weight = _number(tail)
    return {"file": head, "weight": weight} if colon and isinstance(weight, float) else {"file": text}


def single_weights(uses: Sequence[dict[str, Any]], model: str) -> list[tuple[str, float]]:
    """LoRAs of one picture, checked. Raises KoshiError("bad_lora") with all faults."""
    draft: dict[str, Any] = {"model": model, "frames": 1, "loras": list(uses)}
    faults: list[dict[str, Any]] = []
    check_loras(draft, faults)
    raise_problems("bad_lora", "This call", faults)
    return [(one["file"], evaluate(one.get("weight", 1.0), 1)[0]) for one in draft["loras"]]


def _check_file(field: str, one: dict[str, Any], draft: dict[str, Any], faults: list[dict[str, Any]]) -> None:
    given, model = one.get("file"), draft.get("model", "koshi-tiny")
    if not isinstance(given, str) or not given:
        return
    try:
        path = Path(given).expanduser().absolute()
        if not path.is_file():
            raise FileNotFoundError
    except (OSError, ValueError, RuntimeError):  # also too long, with a NUL, of an unknown user
        faults.append(problem(field, "there is no such file.", "Check the path.", value=given))
        return
    one["file"] = str(path)
    try:
        traits = find_traits(model) if isinstance(model, str) else None
    except KoshiError:
        traits = None  # the model is a fault of its own
    try:
        lora = open_lora(path)
        if traits is not None:
            check_family(lora, str(model), traits.family)
    except KoshiError as error:
        faults.append(problem(field, error.message, error.hint, value=given))


def read_uses(given: Any, draft: dict[str, Any]) -> list[LoraUse]:
    """LoRAs of a document whose files are of no matter yet. Raises KoshiError("bad_shot")."""
    faults: list[dict[str, Any]] = []
    uses: list[LoraUse] = []
    for k, one in enumerate(given if isinstance(given, list) else [given]):
        try:
            uses.append(LoraUse.model_validate(one))
            check_weight(f"loras[{k}].weight", uses[-1].weight, draft, faults)
        except ValidationError:
            hint = 'A LoRA is {"file": "ink.safetensors", "weight": 1}.'
            faults.append(problem(f"loras[{k}]", "this is no LoRA.", hint, value=one))
    raise_problems("bad_shot", "This shot", faults)
    return uses


def check_weight(field: str, weight: Any, draft: dict[str, Any], faults: list[dict[str, Any]]) -> None:
    """Whether a weight is a schedule within its range."""
    frames, seed = draft.get("frames"), draft.get("seed", 0)
    if not isinstance(frames, int) or isinstance(frames, bool) or frames < 1 or not isinstance(seed, int):
        return
    if isinstance(weight, bool) or not isinstance(weight, (int, float, str, list, dict)):
        faults[:] = [fault for fault in faults if not fault["field"].startswith(field)]
        hint = 'Give a number, a text such as "0:(0), 24:(1)", or a list with one number per frame.'
        faults.append(problem(field, "this is no schedule.", hint, value=weight))
        return
    try:
        values = evaluate(weight, frames, seed=seed)
    except ScheduleError as error:
        faults[:] = [fault for fault in faults if not fault["field"].startswith(field)]
        faults.append(problem(field, error.message, error.hint, error.frame, weight))
        return
    wrong = [index for index, value in enumerate(values) if not -LARGEST <= value <= LARGEST]
    if wrong:
        text = f"the weight at frame {wrong[0]} is {values[wrong[0]]:g}."
        hint = f"Keep it between {-LARGEST:g} and {LARGEST:g}."
        faults.append(problem(field, text, hint, wrong[0], values[wrong[0]]))


def _is_pair(given: Any) -> bool:
    """Whether this is one path with its weight, and not two paths."""
    if not isinstance(given, tuple) or len(given) != 2:
        return False
    weight = given[1]
    if isinstance(weight, str):
        return not weight.endswith(".safetensors")
    return isinstance(weight, (int, float, list)) or hasattr(weight, "tolist")


def _use(one: Any) -> dict[str, Any]:
    if isinstance(one, (str, os.PathLike)):
        return {"file": os.fspath(one)}
    if isinstance(one, (tuple, list)) and len(one) == 2 and isinstance(one[0], (str, os.PathLike)):
        return {"file": os.fspath(one[0]), "weight": _plain(one[1])}
    if isinstance(one, dict) and isinstance(one.get("file"), (str, os.PathLike)):
        return {**one, "file": os.fspath(one["file"]), "weight": _plain(one.get("weight", 1.0))}
    raise _unfit(one)


def _plain(weight: Any) -> Any:
    """Numbers and arrays of other libraries as Python's own."""
    return weight.tolist() if hasattr(weight, "tolist") else weight


def _unfit(given: Any) -> KoshiError:
    text = f"loras holds a {type(given).__name__}."
    return KoshiError("bad_value", text, 'Give a path, (path, weight), or {"file": path, "weight": weight}.')


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
