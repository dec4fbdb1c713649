# SPDX-License-Identifier: GPL-3.0-or-later
"""Video restyle: a film as a watercolour, more and more freely. The film lies below it in the sequencer.

    blender -b -P examples/blend/make_restyle.py -- restyle.blend
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import bpy

sys.path.insert(0, str(Path(__file__).resolve().parent))
import common

FILM = Path(__file__).resolve().parent.parent / "guides" / "clip.mp4"  # twelve frames of a city by the water
FRAMES = 12


def make(scene: bpy.types.Scene, folder: Path) -> None:
    """The film on a strip, and as what every frame is painted over."""
    common.output(scene, "Restyle", FRAMES, size=192)
    film = folder / "restyle.mp4"
    shutil.copyfile(FILM, film)
    editor = scene.sequence_editor
    strips = editor.strips if hasattr(editor, "strips") else editor.sequences  # until Blender 4.4
    strips.new_movie(name="Film", filepath=str(film), channel=1, frame_start=1)
    koshi = scene.koshi
    koshi.video_source, koshi.video, koshi.hybrid_over, koshi.seed = 'FILE', "//restyle.mp4", "every", 3
    common.key(scene, "strength", ((1, 0.35), (FRAMES, 0.55)))
    common.prompts(scene, (1, "a modern city at night, watercolor"))


if __name__ == "__main__":
    common.build(make)
