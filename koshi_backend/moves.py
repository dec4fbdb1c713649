# SPDX-License-Identifier: GPL-3.0-or-later
"""How a shot's picture moves into each frame: its curves, cameras and guides as MotionFields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .depth import DepthMap, GreyScale, group_nearness, read_depth
from .depth.stabilise import FARTHEST, NEAREST
from .depth.steady import SteadyDepth
from .errors import KoshiError
from .exr import exr_pass, read_exr
from .footage import Footage
from .guides import frame_file
from .motion import MotionField, deforum_matrix, resample
from .motion.camera import Camera
from .motion.deforum import TRANSLATION_SCALE
from .motion.deforum3d import deforum_3d_field
from .motion.flow import flow_field
from .motion.plane import plane_field
from .motion.ransac import ransac_move
from .motion.reproject import reproject
from .settings import TURNS
from .shot import Shot

CENTRE = ("transform_center_x", "transform_center_y")
FLIPS = ("perspective_flip_theta", "perspective_flip_phi", "perspective_flip_gamma", "perspective_flip_fv")
SHIFTS = ("translation_x", "translation_y", "translation_z")
# What moves the flat picture, and what moves it over a depth.
CURVES = ("zoom", "angle", *SHIFTS, *CENTRE, *FLIPS)
CURVES_3D = (*SHIFTS, *TURNS, "fov")


class Moves:
    """The motion of one shot.

    encode: a picture [1, 3, H, W] to the model's latent, for depth from its channels.
    """

    def __init__(self, shot: Shot, device: torch.device, encode: Callable[[Tensor], Tensor] | None = None) -> None:
        self.shot, self.device, self._encode = shot, device, encode
        self._guides: dict[tuple[str, int], Tensor] = {}  # of two frames: each is needed twice
        self._estimated: SteadyDepth | None = None
        self._footage = Footage(shot, shot.guides.video or "", timed=True)

    def into(
        self, index: int, picture: Tensor, memory: Mapping[str, np.ndarray]
    ) -> tuple[MotionField, dict[str, np.ndarray]]:
        """The move into frame `index` from the frame before it, and what the next move has to know of it.

        Into frame 0 it is from the shot's last one, for loops.
        picture: the frame before, [1, 3, H, W]. memory: what this returned for it.
        Raises KoshiError for guides that do not serve, naming the file and the frame.
        """
        motion, border = self.shot.motion, self.shot.feedback.border
        if motion.source == "2d":
            return self._curves(index), {}
        if motion.source == "3d":
            # Deforum flips first.
            field = self._curves(index, SHIFTS).then(self._warp(index, picture, memory), border)
            advance = self.shot.values["translation_z"][index] / TRANSLATION_SCALE
            return field, self._depth_model().remember(field, advance) if self._looks else {}
        source = self._camera(index) if motion.source == "camera" else self._video(index)
        return source.then(self._curves(index), border), {}

    def through(
        self, first: int, last: int, picture: Tensor, memory: Mapping[str, np.ndarray]
    ) -> tuple[list[MotionField], dict[str, np.ndarray]]:
        """The moves into the frames first + 1 .. last, one after the other, and what the move after them has to know.

        picture: frame `first`. A move that needs the picture before it is given this one, moved so far. A frame number
        from the shot's length on counts from 0 again.
        """
        steps: list[MotionField] = []
        shown, state = picture, dict(memory)
        whole = MotionField.identity(self.shot.width, self.shot.height, picture.device)
        for index in range(first + 1, last + 1):
            field, state = self.into(index % self.shot.frames, shown, state)
            steps.append(field)
            if self._looks and index < last:
                whole = whole.then(field, self.shot.feedback.border)
                shown = resample(picture, whole, self.shot.feedback.border)
        return steps, state

    def video(self, index: int) -> Tensor:
        """The video's picture for frame `index`, [1, 3, H, W] on the device."""
        return self._guide("video", index)

    def nearness(self, picture: Tensor, index: int) -> Tensor:
        """How near things are in a picture that belongs to frame `index`, [H, W] in 0..1: 1 is near, as Deforum's depth
        masks have it."""
        shot, settings = self.shot, self.shot.depth
        nearest, farthest = settings.nearest, settings.farthest
        if settings.source in ("model", "groups"):
            depth = self._depth_model().of(picture, {})
            if depth.kind == "relative":
                nearest, farthest = NEAREST, FARTHEST
        else:
            path = frame_file(shot.guides.depth or "", shot.number(index))
            depth = read_depth(path, shot.width, shot.height, grey=self._grey(), device=self.device)
        return 2.0 - deforum_depth(depth, nearest, farthest)

    @property
    def _looks(self) -> bool:
        """Whether a move depends on what the picture shows."""
        return self.shot.motion.source == "3d" and self.shot.depth.source in ("model", "groups")

    def _curves(self, index: int, without: tuple[str, ...] = ()) -> MotionField:
        shot = self.shot
        row = {name: shot.values[name][index] for name in CURVES if name not in without}
        matrix = deforum_matrix(shot.width, shot.height, **row)
        return MotionField.affine(matrix, shot.width, shot.height, self.device, shot.feedback.border)

    def _warp(self, index: int, picture: Tensor, memory: Mapping[str, np.ndarray]) -> MotionField:
        shot, settings = self.shot, self.shot.depth
        row = {name: shot.values[name][index] for name in CURVES_3D}
        depth: DepthMap | None = None
        nearest, farthest = settings.nearest, settings.farthest
        if settings.source == "files":
            path = frame_file(shot.guides.depth or "", shot.number(shot.preceding(index)))
            depth = read_depth(path, shot.width, shot.height, grey=self._grey(), device=self.device)
        elif settings.source != "plane":
            depth = self._depth_model().of(picture, memory)
            if depth.kind == "relative":
                nearest, farthest = NEAREST, FARTHEST
        places = None if depth is None else deforum_depth(depth, nearest, farthest)
        return deforum_3d_field(
            shot.width, shot.height, places, **row, aspect=shot.values["aspect_ratio"][index],
            border=shot.feedback.border, device=self.device,
        )  # fmt: skip

    def _depth_model(self) -> SteadyDepth:
        """What estimates depth; loaded when it is first needed."""
        if self._estimated is None:
            shot = self.shot
            if shot.depth.source == "model":
                from .depth.estimate import DepthModel

                model = DepthModel.load(shot.depth.model, self.device)
                self._estimated = SteadyDepth(model.nearness, model.kind)
            else:
                encode = self._encode
                if encode is None:
                    raise KoshiError(
                        "bad_motion",
                        "depth.source 'groups' reads depth from the model's latents, and there is no model here.",
                        "Take another depth.source, or render with the model.",
                    )
                self._estimated = SteadyDepth(lambda p: group_nearness(encode(p), shot.width, shot.height))
        return self._estimated

    def _video(self, index: int) -> MotionField:
        shot, motion = self.shot, self.shot.motion
        before, now = self._guide("video", self.shot.preceding(index)), self._guide("video", index)
        if motion.source == "flow":
            return flow_field(before, now, motion.flow_method, factor=motion.flow_factor)
        move = ransac_move(before, now, motion.source, frame=shot.number(index))
        return move.field(shot.width, shot.height, self.device)

    def _camera(self, index: int) -> MotionField:
        shot, plane, last = self.shot, self.shot.motion.plane, self.shot.preceding(index)
        cameras = shot.motion.cameras or []
        before, now = (Camera.from_dict(cameras[k].model_dump(), shot.number(k)) for k in (last, index))
        if shot.guides.depth is None and plane is not None:
            first, second = (
                (np.array(camera.matrix_world), camera.intrinsics(shot.width, shot.height)) for camera in (before, now)
            )
            return plane_field(first, second, plane.point, plane.normal, shot.width, shot.height, self.device)
        own, own_before = None, None
        if shot.guides.vector is not None:
            own, own_before = self._guide("vector", index), self._guide("vector", last)
        depth, depth_before = self._guide("depth", index), self._guide("depth", last)
        return reproject(
            before, now, depth, depth_before,
            vector=own, previous_vector=own_before, vectors_seen=shot.guides.vector_seen,
        )  # fmt: skip

    def _guide(self, name: str, index: int) -> Tensor:
        """A guide of one frame, on the device: depth [H, W], vector [H, W, 4], video [1, 3, H, W]."""
        if (name, index) not in self._guides:
            for key in [key for key in self._guides if key[1] < index - 1]:
                del self._guides[key]
            given, number = getattr(self.shot.guides, name), self.shot.number(index)
            path = frame_file(given, number)
            if name == "vector" or (name == "depth" and path.suffix.lower() == ".exr"):
                found = self._read_pass(path, number, name.capitalize())
            elif name == "depth":
                found = read_depth(path, self.shot.width, self.shot.height, grey=self._grey()).values
            else:
                found = self._footage.picture(index)
            self._guides[name, index] = found.to(self.device)
        return self._guides[name, index]

    def _read_pass(self, path: Path, number: int, name: str) -> Tensor:
        """A render pass of the shot's own size: another would have to be bent, and vectors cannot be."""
        array = exr_pass(read_exr(path, lambda channel: f".{name}." in f".{channel}"), name)
        height, width = array.shape[:2]
        if (width, height) != (self.shot.width, self.shot.height):
            raise KoshiError(
                "bad_guide",
                f"Frame {number}: {path} is {width} x {height}, the shot {self.shot.width} x {self.shot.height}.",
                "Render the guides in the shot's size.",
            )
        return torch.from_numpy(array)

    def _grey(self) -> GreyScale:
        settings = self.shot.depth
        return GreyScale(settings.near, settings.spacing, settings.nearest, settings.farthest)


def deforum_depth(depth: DepthMap, nearest: float, farthest: float) -> Tensor:
    """Deforum's depth, float32 [H, W]: 1 at `nearest` to 2 at `farthest`, even in 1 / depth as MiDaS has it.

    Deforum levels each frame's own histogram first; this does not, which is what keeps depth from breathing.
    """
    near, far = 1.0 / nearest, 1.0 / farthest
    return 2.0 - ((1.0 / depth.values - far) / (near - far)).clamp(0.0, 1.0)
