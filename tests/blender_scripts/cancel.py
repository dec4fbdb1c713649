# SPDX-License-Identifier: GPL-3.0-or-later
"""Render, cancel after two frames, and report how long that took and what was kept."""

from __future__ import annotations

import os
import sys
import time

import bpy

sys.path.insert(0, os.path.dirname(__file__))
from inside import koshi, result

start, state = koshi("operators.start"), koshi("operators.state")
running = start.render(bpy.context.scene)
longest = 0.0
while state.status.done < 2 and not running.over:
    begin = time.thread_time()  # of the processor, which does not grow with what else the computer does
    running.pump()
    longest = max(longest, time.thread_time() - begin)
    time.sleep(0.02)
begin = time.monotonic()
running.cancel()
running.run()
seconds = time.monotonic() - begin
strip = koshi("operators.compat").strips(bpy.context.scene.sequence_editor)[0]
files = [os.path.join(bpy.path.abspath(strip.directory), e.filename) for e in strip.elements]
status = state.status
result(
    {
        "phase": status.phase,
        "message": status.message,
        "seconds": seconds,
        "longest_tick": longest,
        "done": status.done,
        "frames": status.frames,
        "files": [path for path in files if os.path.isfile(path)],
        "elements": len(files),
        "job": status.job_id,
    }
)
