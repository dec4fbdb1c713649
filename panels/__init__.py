# SPDX-License-Identifier: GPL-3.0-or-later
"""What the artist sees: the animatable properties, the sidebar, the preferences."""

from __future__ import annotations

from . import engine, preferences, preview, properties, sidebar


def register_properties() -> None:
    """Add `scene.koshi` and the preferences; operators and panels need both."""
    properties.register()
    preferences.register()


def unregister_properties() -> None:
    """Remove `scene.koshi` and the preferences."""
    preferences.unregister()
    properties.unregister()


def register() -> None:
    """Add the sidebar panels."""
    sidebar.register()
    preview.register()
    engine.register()


def unregister() -> None:
    """Remove the sidebar panels."""
    engine.unregister()
    preview.unregister()
    sidebar.unregister()
