# SPDX-License-Identifier: GPL-3.0-or-later
"""What the artist does: sample curves, render, cancel, edit prompts, run the backend, command line."""

from __future__ import annotations

from . import (
    backend,
    bake,
    cli,
    diagnose,
    engine,
    guides,
    motion_preview,
    preview,
    prompts,
    pumped,
    render,
    setup,
    state,
    store,
)

MODULES = (setup, store, diagnose, prompts, backend, bake, guides, render, preview, motion_preview, engine, cli)


def register() -> None:
    """Add the operators and the `koshi` command."""
    for module in MODULES:
        module.register()


def unregister() -> None:
    """Remove them; a render in progress goes on in the backend and can be found again."""
    pumped.stop()
    state.let_go()
    for module in reversed(MODULES):
        module.unregister()
    state.close_log()
