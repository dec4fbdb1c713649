# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands after `--` on Blender's command line: `blender -b FILE.blend -E KOSHI -a -- --koshi-device cuda:1`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from ..bridge_server.protocol import BridgeError


@dataclass(frozen=True)
class Options:
    """None: as the scene says, or as the backend chooses. start: the frame at which the shot begins."""

    model: str | None = None
    device: str | None = None
    steps: int | None = None
    start: int | None = None

    @contextmanager
    def over(self, settings: Any) -> Iterator[None]:
        """The scene's own model is not looked for while another one is to paint: a farm need not have it."""
        before = settings.model
        if self.model is not None:
            settings.model = "koshi-tiny"
        try:
            yield
        finally:
            if self.model is not None:
                settings.model = before

    def change(self, shot: dict[str, Any]) -> dict[str, Any]:
        """The shot with this model and these steps."""
        changed = dict(shot)
        if self.model is not None:
            changed["model"] = os.path.abspath(self.model) if os.path.exists(self.model) else self.model
        if self.steps is not None:
            changed["steps"] = self.steps
        return changed


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BridgeError("bad_arguments", f"After --: {message}.", "docs/farm.md lists what may stand there.")


def options(argv: Sequence[str] | None = None) -> Options:
    """Read them (of this process). Arguments that do not begin with --koshi- belong to others and are left alone.

    Raises BridgeError "bad_arguments".
    """
    given = list(sys.argv if argv is None else argv)
    given = given[given.index("--") + 1 :] if "--" in given else []
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--koshi-model", dest="model")
    parser.add_argument("--koshi-device", dest="device")
    parser.add_argument("--koshi-steps", dest="steps", type=int)
    parser.add_argument("--koshi-start", dest="start", type=int)
    known, others = parser.parse_known_args(given)
    for other in others:
        if other.startswith("--koshi-"):
            parser.error(f"there is no {other.partition('=')[0]}")
    return Options(**vars(known))
