# SPDX-License-Identifier: GPL-3.0-or-later
"""Wrong calls of the Python interface, refused in words: an argument that is not there, and the one that was meant."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

from .errors import KoshiError, problem, raise_problems

P = ParamSpec("P")
R = TypeVar("R")


def named(function: Callable[P, R], passed_to: Callable[..., Any] | None = None) -> Callable[P, R]:
    """The function, with its calls checked first. passed_to: takes the keywords that `function` does not name itself.

    Raises KoshiError("bad_arguments") that lists every unknown name with the nearest right one, or says what is
    missing or given twice.
    """
    signature = inspect.signature(function)
    known = _keywords(function) + ([] if passed_to is None else _keywords(passed_to))
    name = function.__qualname__.removesuffix(".__init__")
    open_ended = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()) and passed_to is None

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        if not open_ended:
            refuse_unknown(name, kwargs, known)
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            text = str(error).replace("a required argument: ", "the argument ")
            raise KoshiError("bad_arguments", f"{name}: {text}.", f"Its arguments: {', '.join(known)}.") from error
        return function(*args, **kwargs)

    return checked


def passing(taker: Callable[..., Any]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """`named` for a function that hands further keywords on to `taker`."""
    return lambda function: named(function, taker)


def refuse_unknown(name: str, given: Iterable[str], known: list[str]) -> None:
    """Raise KoshiError("bad_arguments") for the keywords that are not known. name: of what is called."""
    faults = []
    for word in given:
        if word not in known:
            hint = f"Did you mean {near!r}?" if (near := nearest(word, known)) else f"There are {', '.join(known)}."
            faults.append(problem(word, f"{name} has no such argument.", hint))
    raise_problems("bad_arguments", "This call", faults)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name that is most like `word`: alike in letters, or the one that it is a part of."""
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1)
    inside = [name for name in names if len(word) > 3 and (word in name or name in word)]
    return next(iter(close or inside), None)


def _keywords(function: Callable[..., Any]) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [p.name for p in inspect.signature(function).parameters.values() if p.kind in kinds and p.name != "self"]
