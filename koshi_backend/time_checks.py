# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a shot's keyframes, loop and cadence fit the rest of it. No torch: the server process checks shots too."""

from __future__ import annotations

from typing import Any

from .checks import renderable
from .errors import problem


def check_time(draft: dict[str, Any], faults: list[dict[str, Any]]) -> None:
    """Add what contradicts the rest of the shot to `faults`."""
    time, frames, feedback = draft.get("time", {}), draft.get("frames"), draft.get("feedback", {})
    if not (isinstance(time, dict) and isinstance(feedback, dict) and renderable(frames)):
        return
    keyframes = time.get("keyframes", {})
    given = keyframes.get("frames", []) if isinstance(keyframes, dict) else []
    late = [k for k in given if renderable(k) and k >= frames] if isinstance(given, list) else []
    if late:
        text = f"there is a keyframe at frame {late[0]}, and the shot has {frames} frames."
        faults.append(problem("time.keyframes.frames", text, "Frames count from 0 here.", late[0], late[0]))
    if time.get("inbetween") == "rife" and time.get("rife") is None:
        text = "pictures between two are to be made by RIFE, but its weights are not given."
        faults.append(problem("time.rife", text, "Name the file flownet.pkl of RIFE v4.6, or use 'flow'."))
    if time.get("loop") == "seamless" and feedback.get("carry") == "none":
        text = "frames that nothing is carried into cannot be drawn towards frame 0."
        faults.append(problem("time.loop", text, "Use 'back', or carry pixels.", value="seamless"))
