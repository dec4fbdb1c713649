# SPDX-License-Identifier: GPL-3.0-or-later
"""Import shots and export them again: `-- FOLDER`, all its .koshi.json files. Report what came out, and the keys."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, os.path.dirname(__file__))
from inside import arguments, empty_scene, koshi, result

exchange, shot_file, sample = koshi("operators.exchange"), koshi("operators.shot_file"), koshi("operators.sample")
compat = koshi("operators.compat")
BridgeError = koshi("bridge_server.protocol").BridgeError
(folder,) = arguments()
scene = empty_scene()
scene.koshi.motion_source, scene.frame_step, scene.render.resolution_percentage = 'CAMERA', 3, 50
out: dict = {"shots": {}, "left": {}, "keys": {}, "errors": {}}
for path in sorted(Path(folder).glob("*.koshi.json")):
    try:
        carried = shot_file.read(path)
        carried.check_limits(exchange.limits(scene))
        exchange.into_scene(carried, scene)  # one after the other into the same scene: nothing may stay behind
    except BridgeError as error:
        out["errors"][path.name] = str(error)
        continue
    out["left"][path.name] = carried.left
    out["shots"][path.name] = sample.shot_from_scene(scene).shot
    out["keys"][path.name] = {
        curve.data_path.removeprefix("koshi."): [
            [int(p.co[0]), round(p.co[1], 6), p.interpolation] for p in curve.keyframe_points
        ]
        for curve in compat.fcurves(scene) or ()
    }
fields = koshi("operators.shot_fields").fields
read = {name: sorted({*shot_file.READ.get(name, ()), *fields(name)}) for name in shot_file.FIXED}
out["tables"] = {"defaults": koshi("operators.carried_shot").DEFAULTS, "fixed": shot_file.FIXED, "read": read}
result(out)
