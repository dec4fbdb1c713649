# SPDX-License-Identifier: GPL-3.0-or-later
"""What the artist does: sample curves, render, cancel, edit prompts, run the backend, command line."""

from __future__ import annotations

from . import backend, bake, cli, engine, guides, motion_preview, preview, prompts, pumped, render, state


def register() -> None:
    """Add the operators and the `koshi` command."""
    for module in (prompts, backend, bake, guides, render, preview, motion_preview, engine, cli):
        module.register()


def unregister() -> None:
    """Remove them; a render in progress goes on in the backend and can be found again."""
    pumped.stop()
    state.let_go()
    for module in (cli, engine, motion_preview, preview, render, guides, bake, backend, prompts):
        module.unregister()
    state.close_log()
