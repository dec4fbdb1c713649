# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a shot's motion has what it needs. No torch: the server process checks shots too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .checks import renderable
from .errors import problem
from .settings import ABSOLUTE

_NUMBERED = "such as depth/####.exr"


def check_motion(draft: dict[str, Any], faults: list[dict[str, Any]]) -> None:
    """Add what is missing for the motion's source, or contradicts it, to `faults`."""
    motion, guides, depth = (draft.get(name, {}) for name in ("motion", "guides", "depth"))
    if not (isinstance(motion, dict) and isinstance(guides, dict) and isinstance(depth, dict)):
        return
    absolute = motion.get("absolute", [])
    for name in absolute if isinstance(absolute, list) else ():
        if name not in ABSOLUTE:
            hint = f"These can be: {', '.join(ABSOLUTE)}."
            faults.append(problem("motion.absolute", f"{name!r} cannot be absolute.", hint, value=name))
    _check_cuts(draft, motion, faults)
    source = motion.get("source", "2d")
    if source == "camera":
        _check_cameras(draft, motion, guides, faults)
    if source in ("flow", "affine", "perspective") and not guides.get("video"):
        hint = "Name a video file, or numbered pictures such as clip/####.png."
        faults.append(problem("guides.video", f"motion.source {source!r} follows a video, but none is given.", hint))
    if source == "3d" and depth.get("source") == "files" and not guides.get("depth"):
        hint = f"Give guides.depth, {_NUMBERED}, or take another depth.source."
        faults.append(problem("guides.depth", "depth.source is files, but no files are named.", hint))
    _check_range(depth, faults)


def _check_cuts(draft: dict[str, Any], motion: dict[str, Any], faults: list[dict[str, Any]]) -> None:
    cuts, frames = motion.get("cuts"), draft.get("frames")
    late = [k for k in cuts if renderable(k) and renderable(frames) and k >= frames] if isinstance(cuts, list) else []
    if late:
        text = f"there is a cut at frame {late[0]}, and the shot has {frames} frames."
        faults.append(problem("motion.cuts", text, "Frames count from 0 here.", late[0], late[0]))


def _check_range(depth: dict[str, Any], faults: list[dict[str, Any]]) -> None:
    nearest, farthest = depth.get("nearest", 1.0), depth.get("farthest", 5.0)
    if isinstance(nearest, (int, float)) and isinstance(farthest, (int, float)) and not nearest < farthest:
        hint = "nearest is the smaller of the two distances."
        text = f"nearest is {nearest:g}, and farthest only {farthest:g}."
        faults.append(problem("depth.nearest", text, hint, value=nearest))


def _check_cameras(
    draft: dict[str, Any], motion: dict[str, Any], guides: dict[str, Any], faults: list[dict[str, Any]]
) -> None:
    cameras, frames = motion.get("cameras"), draft.get("frames")
    if not isinstance(cameras, list):
        hint = "Give one camera per frame; Blender writes them."
        faults.append(problem("motion.cameras", "motion.source is camera, but there are no cameras.", hint))
    elif renderable(frames) and len(cameras) != frames:
        hint = "Give one camera per frame."
        faults.append(problem("motion.cameras", f"there are {len(cameras)} cameras for {frames} frames.", hint))
    plane = motion.get("plane")
    if not guides.get("depth") and plane is None:
        hint = f"Give guides.depth, {_NUMBERED} with the pass Depth from Blender, or motion.plane for a flat scene."
        faults.append(problem("guides.depth", "a camera moves a picture only over a depth.", hint))
    if not guides.get("depth") and isinstance(cameras, list):
        flat = [k for k, one in enumerate(cameras) if isinstance(one, dict) and one.get("kind") == "ORTHO"]
        if flat and plane is not None:
            hint = "Give guides.depth; over it they can."
            text = "an orthographic camera cannot be followed over a plane."
            faults.append(problem(f"motion.cameras[{flat[0]}].kind", text, hint, flat[0], "ORTHO"))
    vector = guides.get("vector")
    if isinstance(vector, str) and Path(vector).suffix.lower() != ".exr":
        hint = "Blender writes them as OpenEXR with the pass Vector."
        faults.append(problem("guides.vector", "vectors can only be read from .exr files.", hint, value=vector))
    normal = plane.get("normal") if isinstance(plane, dict) else None
    if isinstance(normal, list) and len(normal) == 3 and not any(normal):
        faults.append(problem("motion.plane.normal", "the plane's normal has no length.", "Give a direction."))
