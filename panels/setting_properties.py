# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings that hold for a whole shot: time, colours, noise, depth. The identifiers are the backend's own words."""

from __future__ import annotations

from bpy.props import BoolProperty, EnumProperty, FloatProperty, IntProperty, StringProperty

from ..operators.compat import FILE_OPTIONS
from ..operators.shot_fields import FIELDS

LOOPS = (
    ("none", "None", "The film ends at the last frame"),
    ("back", "Back", "The frames in reverse follow after the last one: there and back again"),
    ("seamless", "Seamless", "The last frames are drawn towards the first one, so that it can follow the last one"),
)
INTERPOLATIONS = (
    ("1", "Off", "As many pictures a second as the scene has frames"),
    ("2", "2 x", "Twice as many pictures a second; the film takes as long"),
    ("4", "4 x", "Four times as many pictures a second; the film takes as long"),
    ("8", "8 x", "Eight times as many pictures a second; the film takes as long"),
)
INBETWEENS = (
    ("flow", "Flow", "Follow by optical flow what the motion leaves over"),
    ("rife", "RIFE", "Follow what the motion leaves over by a network, RIFE 4.6, with weights of your own"),
    ("blend", "Blend", "Fade what the motion leaves over"),
)
BORDERS = (
    ("replicate", "Paint Anew", "Nothing is there: what comes in is painted anew"),
    ("wrap", "Wrap", "The other side of the picture comes in"),
    ("reflect", "Reflect", "A mirror of the picture comes in"),
)
COLOR_MODES = (
    ("LAB", "LAB", "Match lightness and color apart, as eyes see them"),
    ("RGB", "RGB", "Match red, green and blue"),
    ("HSV", "HSV", "Match hue, saturation and value"),
    ("none", "None", "Let colors drift"),
)
COLOR_REFERENCES = (
    ("prompt", "Prompt", "The colors that the model itself gives the prompt in force"),
    ("first", "First Frame", "The first frame's colors, whatever the prompts say"),
    ("previous", "Frame Before", "The colors of the frame before: slow drift"),
    ("image", "Picture", "The colors of a picture, of numbered ones, or of a film"),
    ("guided", "Guided Picture", "The colors of the guided picture in force; before it, the first frame's"),
)
NOISE_TYPES = (
    ("gaussian", "Gaussian", "Fine grain, each pixel for itself"),
    ("perlin", "Perlin", "Soft clouds of several sizes"),
)
NOISE_MODES = (
    ("incremental", "Incremental", "New noise in every frame: nothing burns in"),
    ("fixed", "Fixed", "The same noise in every frame: burns in within a dozen frames"),
    ("slerp", "Between", "Between the same noise and new noise in every frame, as Change says"),
    ("subseed", "Subseed", "The seed's noise, turned towards the subseed's by its strength: slow change by keyframes"),
    ("warped", "Moving", "The noise moves with the picture, and is new where something comes in"),
    ("scaled", "Stretched", "The noise is moved and stretched with the picture like a texture; an experiment"),
)
CARRIES = (
    ("pixels", "Picture", "The picture is moved and corrected, and then painted over"),
    ("latent", "Latent (Experiment)", "The model's latent is moved and never decoded on the way: detail goes faster"),
    ("none", "Nothing", "Each frame is made for itself"),
)
SEED_BEHAVIORS = (
    ("fixed", "Fixed", "The same seed in every frame"),
    ("iter", "Counting Up", "One more after each so many frames"),
    ("ladder", "Ladder", "Two up, one down: 100, 102, 101, 103"),
    ("alternate", "Alternating", "To and fro: 100, 101, 100, 101"),
    ("random", "Random", "Any seeds, and the same ones again from the same first one"),
)
TIME_ROUNDINGS = (
    ("exact", "Exact", "Full precision"),
    ("bfl", "Black Forest Labs", "As Black Forest Labs' own code rounds it, to reproduce its pictures"),
    ("diffusers", "Diffusers", "As diffusers rounds it, to reproduce its pictures"),
)
DEPTH_SOURCES = (  # the last numbers are what a .blend keeps
    ("plane", "Plane", "Everything is equally far: no parallax", 'NONE', 0),
    ("scene", "Scene", "The scene's own depth, as its camera sees it, which Blender renders", 'NONE', 4),
    ("files", "Files", "Pictures of the depth, one for all frames or one for each", 'NONE', 1),
    ("model", "Depth Model", "Estimated from each picture by a model that you have downloaded", 'NONE', 2),
    ("groups", "Latent (Experiment)", "Guessed from the model's latent; not really a depth", 'NONE', 3),
)
NEARS = (("white", "White", "White is near"), ("black", "Black", "Black is near"))
SPACINGS = (
    ("inverse", "Inverse", "Grays are even in 1 / depth, as depth models make them"),
    ("linear", "Linear", "Grays are even in depth"),
)


def _default(name: str) -> object:
    return FIELDS[name][1]


class TimeSettings:
    """What comes between the frames that are made, and after the last one."""

    inbetween: EnumProperty(
        name="In-betweens",
        description="How pictures between two painted ones are made, once both are moved to where they meet",
        items=INBETWEENS,
        default=_default("inbetween"),
        options=set(),
    )
    rife: StringProperty(
        name="Weights",
        description="The file flownet.pkl of RIFE 4.6. It does not come with Koshi, and is not downloaded",
        subtype='FILE_PATH',
        options=FILE_OPTIONS,
    )
    loop: EnumProperty(
        name="Loop",
        description="What comes after the last frame",
        items=LOOPS,
        default=_default("loop"),
        options=set(),
    )
    seam: IntProperty(
        name="Seam",
        description="How many of the last frames are drawn towards the first one",
        default=_default("seam"),
        min=1,
        soft_max=48,
        max=100_000,
        options=set(),
    )
    interpolation: EnumProperty(
        name="Interpolation",
        description="More pictures a second, along the motion between frames. The strip shows the scene's frames; the "
        "others lie beside them in the take's folder, and are in what koshi animate makes of its shot",
        items=INTERPOLATIONS,
        default=str(_default("interpolation")),
        options=set(),
    )
    keyframe_every: IntProperty(
        name="Every",
        description="Each so manieth frame is a keyframe, made anew more than the others; 0 is none",
        default=_default("keyframe_every"),
        min=0,
        soft_max=100,
        max=100_000,
        options=set(),
    )
    keyframe_prompts: BoolProperty(
        name="Where a Prompt Begins",
        description="Make the frames at which a prompt begins keyframes",
        default=_default("keyframe_prompts"),
        options=set(),
    )
    audio: StringProperty(
        name="Sound",
        description="A sound file, or a film with sound, that koshi animate puts under the film",
        subtype='FILE_PATH',
        options=FILE_OPTIONS,
    )


class PictureSettings:
    """Borders, colours and noise."""

    border: EnumProperty(
        name="Border",
        description="What a move finds outside of the picture",
        items=BORDERS,
        default=_default("border"),
        options=set(),
    )
    color_mode: EnumProperty(
        name="Colors",
        description="The space in which colors are matched",
        items=COLOR_MODES,
        default=_default("color_mode"),
        options=set(),
    )
    color_reference: EnumProperty(
        name="Reference",
        description="What the colors are matched to",
        items=COLOR_REFERENCES,
        default=_default("color_reference"),
        options=set(),
    )
    noise_type: EnumProperty(
        name="Grain",
        description="What the grain looks like that Noise adds",
        items=NOISE_TYPES,
        default=_default("noise_type"),
        options=set(),
    )
    noise_mode: EnumProperty(
        name="Latent Noise",
        description="How the noise that the model starts from changes from frame to frame",
        items=NOISE_MODES,
        default=_default("noise_mode"),
        options=set(),
    )
    noise_delta: FloatProperty(
        name="Change",
        description="How new the noise of each frame is: 0 is the same noise, 1 is new noise",
        default=_default("noise_delta"),
        min=0.0,
        max=1.0,
        subtype='FACTOR',
        precision=3,
        options=set(),
    )
    noise_scale: FloatProperty(
        name="Amount",
        description="Factor on the noise that the model starts from: 1 is what it is trained for, less blurs",
        default=_default("noise_scale"),
        min=0.01,
        max=2.0,
        soft_min=0.8,
        soft_max=1.1,
        step=1,
        precision=3,
        options=set(),
    )


class ChainSettings:
    """What is carried from frame to frame, and how seeds go on."""

    carry: EnumProperty(
        name="Carry",
        description="What a frame takes over from the one before it",
        items=CARRIES,
        default=_default("carry"),
        options=set(),
    )
    seed_behavior: EnumProperty(
        name="Seeds",
        description="How the seed goes on from frame to frame; keyframes on Seed overrule it. So that the seed is all "
        "that changes the noise, make Latent Noise fixed",
        items=SEED_BEHAVIORS,
        default=_default("seed_behavior"),
        options=set(),
    )
    seed_iter_n: IntProperty(
        name="After Frames",
        description="After how many frames the seed is one more",
        default=_default("seed_iter_n"),
        min=1,
        soft_max=48,
        max=100_000,
        options=set(),
    )
    time_rounding: EnumProperty(
        name="Time Rounding",
        description="How the model is told its time; the others than Exact reproduce the pictures of other programs",
        items=TIME_ROUNDINGS,
        default=_default("time_rounding"),
        options=set(),
    )


class DepthSettings:
    """Where the depth of the curves' 3D motion comes from."""

    depth_source: EnumProperty(
        name="Depth",
        description="How far things are, for the 3D motion and for masks by depth",
        items=DEPTH_SOURCES,
        default=_default("depth_source"),
        options=set(),
    )
    depth_files: StringProperty(
        name="Files",
        description="OpenEXR with a depth pass, .npy, or gray pictures; #### in the name stands for the frame",
        subtype='FILE_PATH',
        options=FILE_OPTIONS,
    )
    depth_model: StringProperty(
        name="Model",
        description="A depth model: its name on Hugging Face, downloaded before, or a folder",
        default=_default("depth_model"),
        options=set(),
    )
    depth_near: EnumProperty(
        name="Near Is",
        description="Which gray is near, in gray pictures",
        items=NEARS,
        default=_default("depth_near"),
        options=set(),
    )
    depth_spacing: EnumProperty(
        name="Spacing",
        description="What grays are even in, in gray pictures",
        items=SPACINGS,
        default=_default("depth_spacing"),
        options=set(),
    )
    depth_nearest: FloatProperty(
        name="Nearest",
        description="The depth that moves most, in the scene's or the files' units; of gray pictures also what the "
        "near gray means",
        default=_default("depth_nearest"),
        min=0.001,
        soft_max=100.0,
        max=1e6,
        step=10,
        precision=3,
        options=set(),
    )
    depth_farthest: FloatProperty(
        name="Farthest",
        description="The depth that moves half as much, in the scene's or the files' units; of gray pictures also what "
        "the far gray means",
        default=_default("depth_farthest"),
        min=0.001,
        soft_max=100.0,
        max=1e6,
        step=10,
        precision=3,
        options=set(),
    )
