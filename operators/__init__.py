# SPDX-License-Identifier: GPL-3.0-or-later
"""What the artist does: sample curves, render, cancel, edit prompts, run the backend, command line."""

from __future__ import annotations

from . import backend, bake, cli, engine, guides, prompts, render, state


def register() -> None:
    """Add the operators and the `koshi` command."""
    for module in (prompts, backend, bake, guides, render, engine, cli):
        module.register()


def unregister() -> None:
    """Remove them; a render in progress goes on in the backend and can be found again."""
    state.let_go()
    for module in (cli, engine, render, guides, bake, backend, prompts):
        module.unregister()
    state.close_log()
