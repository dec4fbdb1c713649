# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of a Shot: what may be scheduled, prompts, feedback, motion, guides.

No torch: the server process checks shots too.
"""

from __future__ import annotations

import itertools
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

MAX_SIDE = 1792  # pixels; the largest side that FLUX.2 was published for
STRICT = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
Positive = Annotated[float, Field(gt=0, le=1e9)]
Row = Annotated[list[float], Field(min_length=4, max_length=4)]
Point = Annotated[list[float], Field(min_length=3, max_length=3)]
Side = Annotated[int, Field(ge=64, le=MAX_SIDE, multiple_of=16)]


class ScheduleSpec(NamedTuple):
    """What one schedule may hold."""

    default: float
    low: float
    high: float


# Curves that may hold where things are instead of how far they go in a frame; zoom as a ratio, the others as sums.
TURNS = ("rotation_3d_x", "rotation_3d_y", "rotation_3d_z")
ABSOLUTE = ("zoom", "angle", "translation_x", "translation_y", "translation_z", *TURNS)

# Names and meanings are Deforum's, except `strength`: here it is how much is made anew (0 keeps, 1 regenerates).
SCHEDULES: dict[str, ScheduleSpec] = {
    "zoom": ScheduleSpec(default=1.0, low=0.1, high=10.0),
    "angle": ScheduleSpec(default=0.0, low=-360.0, high=360.0),
    "translation_x": ScheduleSpec(default=0.0, low=-4096.0, high=4096.0),
    "translation_y": ScheduleSpec(default=0.0, low=-4096.0, high=4096.0),
    # At the fixed field of view of 70 degrees Deforum's warp turns the picture inside out at 82.4.
    "translation_z": ScheduleSpec(default=0.0, low=-500.0, high=75.0),
    "transform_center_x": ScheduleSpec(default=0.5, low=-10.0, high=10.0),
    "transform_center_y": ScheduleSpec(default=0.5, low=-10.0, high=10.0),
    "perspective_flip_theta": ScheduleSpec(default=0.0, low=-360.0, high=360.0),
    "perspective_flip_phi": ScheduleSpec(default=0.0, low=-360.0, high=360.0),
    "perspective_flip_gamma": ScheduleSpec(default=0.0, low=-360.0, high=360.0),
    "perspective_flip_fv": ScheduleSpec(default=53.0, low=1.0, high=179.0),
    **{name: ScheduleSpec(default=0.0, low=-360.0, high=360.0) for name in TURNS},
    "fov": ScheduleSpec(default=70.0, low=1.0, high=179.0),
    "aspect_ratio": ScheduleSpec(default=1.0, low=0.1, high=10.0),
    "strength": ScheduleSpec(default=0.5, low=0.0, high=1.0),
    # In place of `strength` at keyframes. And how many frames on the next one is that the model makes.
    "keyframe_strength": ScheduleSpec(default=1.0, low=0.0, high=1.0),
    "cadence": ScheduleSpec(default=1.0, low=1.0, high=100.0),
    "noise": ScheduleSpec(default=0.0, low=0.0, high=1.0),
    "contrast": ScheduleSpec(default=1.0, low=0.0, high=4.0),
    "sharpen": ScheduleSpec(default=0.0, low=0.0, high=4.0),
    "color_match": ScheduleSpec(default=0.3, low=0.0, high=1.0),
    # How far a frame is drawn to its guided picture, and how far the mask counts.
    "guided": ScheduleSpec(default=0.2, low=0.0, high=1.0),
    "mask": ScheduleSpec(default=1.0, low=0.0, high=1.0),
    "guidance": ScheduleSpec(default=1.0, low=0.0, high=100.0),
    # How much of the video is mixed in, and the mask that says where (Hybrid); cutoffs are percentiles.
    "hybrid_alpha": ScheduleSpec(default=0.5, low=0.0, high=1.0),
    "hybrid_mask_alpha": ScheduleSpec(default=0.5, low=0.0, high=1.0),
    "hybrid_mask_contrast": ScheduleSpec(default=1.0, low=0.0, high=100.0),
    "hybrid_cutoff_low": ScheduleSpec(default=0.0, low=0.0, high=100.0),
    "hybrid_cutoff_high": ScheduleSpec(default=100.0, low=0.0, high=100.0),
    "seed": ScheduleSpec(default=0.0, low=-1.0, high=2.0**53),
    "subseed": ScheduleSpec(default=0.0, low=0.0, high=2.0**53),
    "subseed_strength": ScheduleSpec(default=0.0, low=0.0, high=1.0),
}


class Prompt(BaseModel):
    """A text that holds from `frame` (counted from 0, the shot's first) until the next prompt.

    negative: what the picture should not show, for models that are guided by contrast.
    ease: how it goes over into the next prompt (prompts.py); "hold" is at once, at the next one's frame.
    weight: a schedule. A prompt that has one does not take turns: it counts from its frame on, as much as this says,
        beside the prompts that do, which count as 1 together.
    """

    model_config = STRICT
    frame: Annotated[int, Field(ge=0)] = 0
    text: Annotated[str, Field(min_length=1, max_length=20_000, pattern=r"\S")]
    negative: Annotated[str, Field(max_length=20_000)] = ""
    ease: Literal["hold", "linear", "ease_in", "ease_out", "ease_in_out", "sigmoid"] = "hold"
    weight: float | str | list[float] | dict[str, str] | None = None


class Feedback(BaseModel):
    """How a frame is made from the one before it.

    carry: what comes from the frame before: the picture, moved and corrected; its latent, moved as such and never
        decoded on the way (an experiment: it loses detail faster, docs/feedback.md); or nothing.
    condition: how it enters: as the noised start, as an in-context reference picture, or both (the default: it follows
        the motion best by far, docs/feedback.md).
    color_mode: the space in which colours are matched.
    color_reference: what they are matched to: the model's own picture of the prompt in force (frame 0, until another
        prompt begins), frame 0 for ever, the frame before, the shot's `color_image`, or the guided picture in force
        (before the first one, frame 0).
    border: what a move finds outside of the picture: its edge repeated (and painted over), the other side, a mirror.
    noise_type: the pixel noise. noise_mode, noise_delta: how the latent noise changes from frame to frame
        (noise/latent.py).
    noise_scale: factor on the latent noise; 1 is what the models are trained for, less blurs.
    """

    model_config = STRICT
    carry: Literal["pixels", "latent", "none"] = "pixels"
    condition: Literal["start", "reference", "both"] = "both"
    position: Literal["grid"] = "grid"
    border: Literal["replicate", "wrap", "reflect"] = "replicate"
    color_mode: Literal["LAB", "RGB", "HSV", "none"] = "LAB"
    color_reference: Literal["prompt", "first", "previous", "image", "guided"] = "prompt"
    noise_type: Literal["gaussian", "perlin"] = "gaussian"
    noise_mode: Literal["fixed", "incremental", "slerp", "subseed", "warped", "scaled"] = "incremental"
    noise_delta: Annotated[float, Field(ge=0, le=1)] = 0.05
    noise_scale: Annotated[float, Field(gt=0, le=2)] = 1.0


class Camera(BaseModel):
    """A camera at one frame, in Blender's names and units (motion/camera.py says more)."""

    model_config = STRICT
    matrix_world: Annotated[list[Row], Field(min_length=4, max_length=4)]
    kind: Literal["PERSP", "ORTHO"] = "PERSP"
    lens: Positive = 50.0
    sensor_width: Positive = 36.0
    sensor_height: Positive = 24.0
    sensor_fit: Literal["AUTO", "HORIZONTAL", "VERTICAL"] = "AUTO"
    shift_x: float = 0.0
    shift_y: float = 0.0
    ortho_scale: Positive = 6.0
    clip_start: Positive = 0.1
    clip_end: Positive = 1000.0
    pixel_aspect_x: Positive = 1.0
    pixel_aspect_y: Positive = 1.0


class Plane(BaseModel):
    """A flat thing in world space: a point on it, and its normal (of any length and side)."""

    model_config = STRICT
    point: Point
    normal: Point


class Motion(BaseModel):
    """What moves the picture.

    source: "2d": the curves zoom, angle, translation and perspective flip alone, as in Deforum's 2D mode. "3d": the
        curves translation, rotation_3d, fov over a depth, as in Deforum's 3D mode, with zoom, angle and flip on top.
        With the others, all the curves of 2d come on top. "camera": `cameras`, exactly, over the depth in the guides,
        with the vectors there for what moves by itself; or over `plane`. "flow", "affine", "perspective": what moves
        in the guide video, pixel by pixel or as a whole.
    absolute: names of curves that hold where things are instead of how far they move in a frame.
    cuts: frames, counted from 0, that begin anew as frame 0 does: nothing is carried into them. What `init_image` says
        of frame 0 holds for them too, if its name has #### in it.
    cameras: one per frame, for source "camera". plane: what they look at, where no depth is given.
    flow_method, flow_factor: how flow is found (motion/flow.py), and by how much it counts.
    """

    model_config = STRICT
    source: Literal["2d", "3d", "camera", "flow", "affine", "perspective"] = "2d"
    absolute: list[str] = []
    cuts: list[Annotated[int, Field(ge=0)]] = []
    cameras: list[Camera] | None = None
    plane: Plane | None = None
    flow_method: Literal["dis_ultrafast", "dis_fast", "dis_medium", "dis_fine", "farneback", "raft"] = "dis_medium"
    flow_factor: Annotated[float, Field(ge=-10, le=10)] = 1.0


class Depth(BaseModel):
    """Where the depth of motion source "3d" comes from, and how greys are read as depth.

    source: "plane": everything is equally far. "files": guides.depth. "model": estimated from each picture by `model`,
        a folder or a repository of Depth Anything or DPT (MiDaS). "groups": guessed from the latent's channels, an
        experiment (docs/feedback.md).
    near, spacing, nearest, farthest: of grey pictures (depth/files.py); the last two also say which depths become
        Deforum's 1 and 2, those of estimated depth being 1 and 5.
    """

    model_config = STRICT
    source: Literal["plane", "files", "model", "groups"] = "plane"
    model: Annotated[str, Field(min_length=1)] = "depth-anything/Depth-Anything-V2-Small-hf"
    near: Literal["white", "black"] = "white"
    spacing: Literal["inverse", "linear"] = "inverse"
    nearest: Positive = 1.0
    farthest: Positive = 5.0


class Guides(BaseModel):
    """Files that guide a frame: one for each, with #### in the name for the frame's number, or one for all.

    depth: the scene's depth, from Blender as OpenEXR with the pass Depth, as .npy, or as grey pictures. vector: OpenEXR
        with the pass Vector. vector_seen: by which camera its neighbours are seen (motion/vectors.py); Blender says.
    video: numbered pictures or a video file: its motion counts (motion.source), or its pictures (hybrid).
    video_first, video_every, video_last: which of its frames, counted from 0: the shot's frame k has first + k * every,
        and none after last is used. Frame n of numbered pictures is the one that the shot's frame n would have.
    structure: what the model is shown beside the frame before, for where things are; drawn as `structure_as` says: the
        picture as it is; a depth (as `depth` is read) as a grey picture, near is light; or the outlines of either.
    mask: where frames are painted, and how much: white is by `strength`, grey by so much of it, and in black the moved
        picture stays. OpenEXR: the pass IndexOB, all that is not 0. It may be a video file.
    """

    model_config = STRICT
    depth: Annotated[str, Field(min_length=1)] | None = None
    vector: Annotated[str, Field(min_length=1)] | None = None
    vector_seen: Literal["camera", "lens", "still"] = "camera"
    video: Annotated[str, Field(min_length=1)] | None = None
    video_first: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    video_every: Annotated[int, Field(ge=1, le=100_000)] = 1
    video_last: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    structure: Annotated[str, Field(min_length=1)] | None = None
    structure_as: Literal["picture", "depth", "edges"] = "picture"
    mask: Annotated[str, Field(min_length=1)] | None = None


class Hybrid(BaseModel):
    """How the pictures of guides.video come in.

    over: which frames are painted over the video's own: none; "first", those that begin (frame 0 and cuts), in place of
        init_image; or "every" one, with nothing carried (Deforum's mode Video Input). Strength says how much is new.
    composite: when the video is mixed in: into the frame before, which is then moved; into the moved picture, before it
        is corrected and painted; or into the painted one. The curve `hybrid_alpha` says how much. Only frames that are
        made are mixed; those between them follow.
    mask: where; white keeps the picture, black shows the video. How near things are (near is white) in the picture or
        in the video, by `depth`; or greys: both mixed by `hybrid_mask_alpha`; or how far they differ.
    inverse, equalize, auto_contrast: what becomes of the mask, in this order: inverse; equalize before; contrast by
        `hybrid_mask_contrast`; auto contrast from percentile `hybrid_cutoff_low` to `_high`; equalize after.
    """

    model_config = STRICT
    over: Literal["none", "first", "every"] = "none"
    composite: Literal["none", "before_motion", "normal", "after_generation"] = "none"
    mask: Literal["none", "depth", "video_depth", "blend", "difference"] = "none"
    inverse: bool = False
    equalize: Literal["none", "before", "after", "both"] = "none"
    auto_contrast: bool = False


class GuidedImage(BaseModel):
    """A picture that the shot is drawn towards from `frame` (counted from 0) on, until the next one."""

    model_config = STRICT
    frame: Annotated[int, Field(ge=0)] = 0
    image: Annotated[str, Field(min_length=1)]


class Masking(BaseModel):
    """The mask, and what is made of its greys, in the order of brightness, contrast, invert, blur.

    alpha: the mask is the alpha channel of `init_image`, white where that is opaque, and not guides.mask.
    where: a schedule of masks in words (mask_words.py), each until the next one: what the mask is.
    noise: the same of where the schedule `noise` adds noise to the picture; its greys stay as they are.
    brightness: a factor on them. contrast: a factor on how far they are from their mean. invert: black is painted.
    blur: pixels (the deviation of a Gaussian) over which its edges are soft.
    """

    model_config = STRICT
    alpha: bool = False
    where: Annotated[str, Field(min_length=1)] | None = None
    noise: Annotated[str, Field(min_length=1)] | None = None
    brightness: Annotated[float, Field(ge=0, le=100)] = 1.0
    contrast: Annotated[float, Field(ge=0, le=100)] = 1.0
    invert: bool = False
    blur: Annotated[float, Field(ge=0, le=256)] = 0.0


class Keyframes(BaseModel):
    """Frames that are made anew more than the others: with the curve `keyframe_strength` in place of `strength`.

    every: each so manieth frame; 0 is none. frames: these, counted from 0. prompts: those at which a prompt begins.
    At 1, the default, a keyframe starts from noise alone: what has burnt in or washed out over the frames before is
    gone. It is still the same scene wherever the model is shown the moved picture as a reference (feedback.condition);
    with condition "start" it is a new picture of the prompt, and .8 keeps its outlines. With "reference" all frames
    start from noise, and keyframes are no different. Keyframes are made whatever the cadence says.
    """

    model_config = STRICT
    every: Annotated[int, Field(ge=0)] = 0
    frames: list[Annotated[int, Field(ge=0)]] = []
    prompts: bool = False


class Time(BaseModel):
    """What comes between the frames that are made, and after the last one.

    inbetween: pictures between two made ones are both of these, moved to where they meet; "flow" follows what the
        motion leaves over by optical flow too, "rife" by a network with the weights in `rife`, "blend" fades it.
    rife: the flownet.pkl of RIFE v4.6, for inbetween "rife" (motion/rife.py).
    loop: "back": the frames in reverse follow, without the two ends; "seamless": the last `seam` frames are drawn
        towards frame 0, so that it can follow the last one, and painted less and less, down to half. The curves at
        frame 0 are then the move into it from there.
    interpolation: so many times as many pictures a second; the film takes as long.
    """

    model_config = STRICT
    keyframes: Keyframes = Keyframes()
    inbetween: Literal["flow", "rife", "blend"] = "flow"
    rife: Annotated[str, Field(min_length=1)] | None = None
    loop: Literal["none", "back", "seamless"] = "none"
    seam: Annotated[int, Field(ge=1)] = 12
    interpolation: Literal[1, 2, 4, 8] = 1


GUIDE_FILES = ("depth", "vector", "video", "structure", "mask")  # the others are words


def per_frame(name: str, places: list[float], around: bool = False) -> list[float]:
    """The move into every frame of a curve that holds places: differences, of zoom ratios. None into the first one, or,
    around, that from the last one."""
    begin = places[-1] if around else places[0]
    if name == "zoom":
        return [after / before for before, after in itertools.pairwise([begin, *places])]
    return [after - before for before, after in itertools.pairwise([begin, *places])]
