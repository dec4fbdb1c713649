# SPDX-License-Identifier: GPL-3.0-or-later
"""The one kind of error that Koshi raises on purpose.

Standard library only: this module is imported inside Blender too.
"""

from __future__ import annotations

from typing import Any


class KoshiError(Exception):
    """Something a person can mend.

    code: short machine-readable name ("bad_shot", "unknown_model", ...).
    message: a plain sentence that names the field, the frame and the value.
    hint: what to do about it.
    problems: further faults of the same input, each {"field", "frame", "value", "message", "hint"}, so that
        a person sees all of them at once.
    """

    def __init__(self, code: str, message: str, hint: str = "", problems: list[dict[str, Any]] | None = None) -> None:
        super().__init__(f"{message} {hint}".strip())
        self.code = code
        self.message = message
        self.hint = hint
        self.problems = problems or []

    def as_dict(self) -> dict[str, Any]:
        """The form that travels in JSON."""
        return {"code": self.code, "message": self.message, "hint": self.hint, "problems": self.problems}


class Cancelled(Exception):
    """The work was stopped on request. Not a fault: everything finished until then is kept."""


def problem(field: str, message: str, hint: str = "", frame: int | None = None, value: object = None) -> dict[str, Any]:
    """One entry of `KoshiError.problems`; the value is kept as short text."""
    shown = None if value is None else repr(value)[:80]
    return {"field": field, "frame": frame, "value": shown, "message": message, "hint": hint}


def raise_problems(code: str, what: str, problems: list[dict[str, Any]]) -> None:
    """Raise one KoshiError that lists all `problems`, or return if there are none.

    what: the thing that was refused ("this shot"), as it reads in a sentence.
    """
    if not problems:
        return
    lines = [f"{p['field']}: {p['message']}" + (f" {p['hint']}" if p["hint"] else "") for p in problems]
    if len(lines) == 1:
        first = problems[0]
        raise KoshiError(code, f"{first['field']}: {first['message']}", first["hint"], problems)
    raise KoshiError(code, f"{what} has {len(lines)} faults. " + " | ".join(lines), "", problems)
