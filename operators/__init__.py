# SPDX-License-Identifier: GPL-3.0-or-later
"""What the artist does: sample curves, render, cancel, edit prompts, run the backend, command line."""

from __future__ import annotations

import bpy

from . import (
    backend,
    bake,
    between_strip,
    cli,
    diagnose,
    engine,
    guides,
    make_room,
    media,
    models,
    motion_preview,
    presets,
    preview,
    project,
    prompts,
    pumped,
    redo,
    render,
    schedules,
    setup,
    sound_curve,
    state,
    store,
    take_operators,
    transfer,
    video_input,
)

MODULES = (setup, store, diagnose, prompts, backend, bake, guides, media, render, preview, motion_preview, engine, cli)
MODULES += (models, take_operators, redo, between_strip, video_input, sound_curve, project, transfer, schedules)
MODULES += (presets, make_room)


def register() -> None:
    """Add the operators and the `koshi` command."""
    _write_tooltips_in_one_piece()
    for module in MODULES:
        module.register()


def _write_tooltips_in_one_piece() -> None:
    """Blender shows a docstring's line breaks and indents as they are: give it running text."""
    for cls in bpy.types.Operator.__subclasses__():
        if cls.__module__.startswith(__package__):
            cls.__doc__ = " ".join((cls.__doc__ or "").split())


def unregister() -> None:
    """Remove them; a render in progress goes on in the backend and can be found again."""
    pumped.stop()
    state.let_go()
    for module in reversed(MODULES):
        module.unregister()
    state.close_log()
