# SPDX-License-Identifier: GPL-3.0-or-later
"""What the artist sees: the animatable properties, the sidebar, the preferences."""

from __future__ import annotations

from . import engine, menu, preferences, presets, preview, properties, sidebar, strip, translations


def register_properties() -> None:
    """Add `scene.koshi` and the preferences; operators and panels need both."""
    translations.register()
    properties.register()
    preferences.register()


def unregister_properties() -> None:
    """Remove `scene.koshi` and the preferences."""
    preferences.unregister()
    properties.unregister()
    translations.unregister()


def register() -> None:
    """Add the sidebar panels and the menu."""
    presets.register()
    strip.register()  # first in the sequencer's tab, where a strip is what one works on
    sidebar.register()
    preview.register()
    engine.register()
    menu.register()


def unregister() -> None:
    """Remove the sidebar panels and the menu."""
    menu.unregister()
    engine.unregister()
    preview.unregister()
    sidebar.unregister()
    strip.unregister()
    presets.unregister()
