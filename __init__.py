# SPDX-License-Identifier: GPL-3.0-or-later
"""Koshi: Blender's animation curves become FLUX video. The repository root is the Blender extension."""

from __future__ import annotations


def register() -> None:
    """Add Koshi's properties, operators, panels and command; starts nothing and opens no connection."""
    # Imported here, not above: the folder stays importable (by pytest, say) where there is no bpy.
    from . import operators, panels

    panels.register_properties()
    operators.register()
    panels.register()


def unregister() -> None:
    """Take everything away again; a render in progress goes on in the backend."""
    from . import operators, panels

    panels.unregister()
    operators.unregister()
    panels.unregister_properties()
