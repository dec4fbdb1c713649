# SPDX-License-Identifier: GPL-3.0-or-later
"""What the menus of `scene.koshi` offer: identifier, name and tooltip."""

from __future__ import annotations

MODES = (
    ("START", "Image to Image", "Each frame starts from the moved frame before it, with noise by strength"),
    ("REFERENCE", "Reference", "Each frame is made anew while looking at the moved frame before it"),
    ("BOTH", "Image and Reference", "Start from the moved frame before and look at it too: follows the motion best"),
)

MOTION_SOURCES = (
    ("CURVES", "Curves", "The zoom, angle and translation values below, per frame"),
    (
        "3D",
        "Curves in 3D",
        "As in Deforum's 3D mode: translation and rotation of the view over a depth, with zoom and angle first",
    ),
    (
        "CAMERA",
        "Camera, Flat",
        "The scene camera's motion as zoom, turn and shift of the picture at the focus distance, "
        "with the values below applied on top",
    ),
    (
        "EXACT",
        "Camera, Exact",
        "Every pixel follows the scene camera over the scene's own depth, and objects that move by themselves; "
        "what comes into view is painted anew. The values below are applied on top",
    ),
    (
        "FLOW",
        "Video, Every Pixel",
        "Every pixel follows the optical flow of the film in the panel Video: for people and water. The values below "
        "are applied on top",
    ),
    (
        "AFFINE",
        "Video, as a Whole",
        "The picture shifts, turns and zooms as the film in the panel Video does: for a film from the hand. The values "
        "below are applied on top",
    ),
    (
        "PERSPECTIVE",
        "Video, in Perspective",
        "The picture moves like something flat in the film of the panel Video, seen from elsewhere: for a drone above "
        "fields. The values below are applied on top",
    ),
)

CURVES = (
    ("PER_FRAME", "Per Frame", "The values say how far the picture moves in each frame, as in Deforum"),
    (
        "ABSOLUTE",
        "Absolute",
        "The values say where the picture is: its size, its turn and its place; what moves it is the difference to the "
        "frame before, of the zoom the ratio",
    ),
)

STRUCTURES = (
    ("NONE", "None", "The model sees the frame before, and nothing of the scene"),
    ("DEPTH", "Depth", "The model is also shown how far things are, as a gray picture"),
    ("EDGES", "Edges", "The model is also shown the outlines of the scene's depth"),
    ("CLAY", "Clay", "The model is also shown the scene in plain gray"),
    ("SCENE", "Scene", "The model is also shown the scene as it is, quickly rendered"),
    ("FILE", "File", "The model is also shown pictures of your own"),
)

STARTS = (
    ("PROMPT", "Prompt", "The model draws the first frame from its prompt alone"),
    (
        "SCENE",
        "Scene",
        "The first frame is painted over a render of the scene, so that the picture has the scene's layout; "
        "strength at that frame says how much is made anew",
    ),
    (
        "IMAGE",
        "Picture",
        "The first frame is painted over a picture of your own; strength at that frame says how much is made anew",
    ),
)
