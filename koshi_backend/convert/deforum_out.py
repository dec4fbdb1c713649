# SPDX-License-Identifier: GPL-3.0-or-later
"""A shot as settings of sd-webui-deforum: every key that it saves, strengths turned round."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..schedules import evaluate
from ..settings import TURNS
from ..shot import Shot
from . import grammar, prompts
from .carriers import DEPTH_MODELS
from .guided_out import write_file_colours, write_guided
from .hybrid_out import CURVES, write_hybrid
from .leftover import Outgoing
from .loras import with_words
from .mask_out import write_mask
from .report import Report
from .webui_settings import SETTINGS

FLIPS = ("perspective_flip_theta", "perspective_flip_phi", "perspective_flip_gamma", "perspective_flip_fv")
_SHIFTS = ("translation_x", "translation_y")
_FLAT = ("zoom", "angle", *_SHIFTS, "transform_center_x", "transform_center_y")
_DEEP = (*_SHIFTS, "translation_z", *TURNS)
_NAMES = {"fov": "fov_schedule", "aspect_ratio": "aspect_ratio_schedule", "noise": "noise_schedule",
          "contrast": "contrast_schedule", "sharpen": "amount_schedule", "guidance": "cfg_scale_schedule",
          "subseed": "subseed_schedule", "subseed_strength": "subseed_strength_schedule", **CURVES}  # fmt: skip
_MOVES = ("zoom", "angle", *_SHIFTS, "translation_z", *TURNS, "transform_center_x", "transform_center_y", "fov",
          "aspect_ratio", "perspective_flip_fv")  # fmt: skip
_FLOWS = {"raft": "RAFT", "dis_medium": "DIS Medium", "dis_fine": "DIS Fine", "farneback": "Farneback"}


def to_settings(shot: Shot, report: Report, folder: Path, out: Path | None = None) -> dict[str, Any]:
    """The settings; what has no place in them is reported. folder: where the shot's relative file names begin."""
    way = Outgoing(shot, report, folder, out)
    settings: dict[str, Any] = {**SETTINGS, "max_frames": shot.frames, "W": shot.width, "H": shot.height,
                                "fps": shot.fps, "steps": shot.steps, "steps_schedule": f"0: ({shot.steps})",
                                "seed": shot.seed}  # fmt: skip
    way.carry("max_frames", "frames")
    way.carry("W", "width")
    way.carry("H", "height")
    way.carry("fps", "fps")
    way.carry("steps", "steps")
    way.carry("seed", "seed")
    _motion(way, settings)
    _curves(way, settings, ("guidance", *write_hybrid(way, settings)))
    if shot.hybrid.over == "every":
        _strength(way, settings)
    if shot.feedback.carry != "none":  # else nothing comes from the frame before that could be changed
        _curves(way, settings, ("noise", "contrast", "sharpen"))
        _strength(way, settings)
        _colours(way, settings)
        settings["noise_type"] = {"gaussian": "uniform", "perlin": "perlin"}[shot.feedback.noise_type]
        way.carry("noise_type", "feedback.noise_type")
        _time(way, settings)
        write_guided(way, settings)
        write_mask(way, settings)
    _seeds(way, settings)
    _prompts(way, settings)
    if shot.audio is not None:
        own = settings["video_init_path"] and way.file("audio") == settings["video_init_path"]
        settings["add_soundtrack"] = "Init Video" if own else "File"
        settings["soundtrack_path"] = "" if own else way.file("audio")
        way.carry("add_soundtrack" if own else "soundtrack_path", "audio")
    if shot.time.interpolation > 1:
        settings["frame_interpolation_engine"] = "RIFE v4.6"
        settings["frame_interpolation_x_amount"] = shot.time.interpolation
        way.carry("frame_interpolation_x_amount", "time.interpolation")
    if shot.init_image is not None:
        settings["use_init"], settings["init_image"] = True, way.file("init_image")
        settings["strength"] = round(1.0 - way.values["strength"][0], 12)
        if not settings["use_looper"]:
            way.carry("init_image, strength", "init_image")
    way.leave("model", "webui paints with its own checkpoint.")
    way.end("sd-webui-deforum has nothing for it.")
    return settings


def _motion(way: Outgoing, settings: dict[str, Any]) -> None:
    shot = way.shot
    source, deep = shot.motion.source, shot.motion.source == "3d"
    settings["animation_mode"] = "3D" if deep else "2D"
    names: Iterable[str] = _DEEP if deep else _FLAT
    if shot.feedback.carry == "none":
        settings["animation_mode"] = "Video Input" if shot.hybrid.over == "every" else "Interpolation"
        way.carry("animation_mode", "feedback.carry")
        names = ()
    elif source in ("2d", "3d"):
        way.carry("animation_mode", "motion.source")
    elif source in ("flow", "affine", "perspective"):
        settings["hybrid_motion"] = {"flow": "Optical Flow"}.get(source, source.capitalize())
        way.carry("hybrid_motion", "motion.source")
        if source == "flow":
            method = _FLOWS.get(shot.motion.flow_method)
            settings["hybrid_flow_method"] = method or "DIS Medium"
            settings["hybrid_flow_factor_schedule"] = f"0: ({grammar.plain(shot.motion.flow_factor)})"
            settings["hybrid_flow_consistency"] = True
            way.carry("hybrid_flow_factor_schedule", "motion.flow_factor")
            if method:
                way.carry("hybrid_flow_method", "motion.flow_method")
            else:
                way.leave("motion.flow_method", "webui has RAFT, DIS Medium, DIS Fine and Farneback.")
    else:
        way.leave("motion.source", "webui knows no Blender camera; only the curves on top of it are carried.")
    _curves(way, settings, names)
    if deep and names:
        _curves(way, settings, ("fov", "aspect_ratio"))
    if names and (deep or (shot.hybrid.composite != "none" and shot.hybrid.mask in ("depth", "video_depth"))):
        _depth(way, settings)
    for name in _MOVES:
        if f"schedules.{name}" not in way.report.carried and not name.startswith("persp") and way.moves(name):
            way.leave(f"schedules.{name}", f"webui's mode {settings['animation_mode']} does not use it.")
    if names and any(way.moves(name) for name in FLIPS[:3]):
        settings["enable_perspective_flip"] = True
        _curves(way, settings, FLIPS)
        if any(way.moves(name) for name in _SHIFTS) and not deep:
            way.report.note("With the perspective flip on, webui's 2D mode forgets translation_x and translation_y.")
    if not names:
        return
    border = shot.feedback.border
    if not deep and border == "reflect":
        way.leave("feedback.border", "webui's 2D mode has replicate and wrap; the settings say replicate.")
    elif deep and border == "wrap":
        way.leave("feedback.border", "webui's 3D mode has border and reflection; the settings say border.")
    else:
        settings["border"] = "wrap" if border == "wrap" else "replicate"
        settings["padding_mode"] = "reflection" if border == "reflect" else "border"
        way.carry("padding_mode" if deep else "border", "feedback.border")
    if shot.motion.absolute:
        way.carry("moves from frame to frame", "motion.absolute")


def _depth(way: Outgoing, settings: dict[str, Any]) -> None:
    depth = way.shot.depth
    settings["use_depth_warping"] = depth.source != "plane"
    models = {model: name for name, model in DEPTH_MODELS.items()}
    if depth.source == "plane":
        way.carry("use_depth_warping", "depth.source")
    elif depth.source == "model" and models.get(depth.model, "").startswith("midas"):
        names = {"midas-3-hybrid": "Midas-3-Hybrid", "midas-3.1-beitlarge": "Midas-3.1-BeitLarge"}
        settings["depth_algorithm"] = names[models[depth.model]]
        way.carry("depth_algorithm", "depth.source", "depth.model")
    else:
        way.leave("depth.source", f"webui estimates depth itself: the settings say {settings['depth_algorithm']}.")


def _curves(way: Outgoing, settings: dict[str, Any], names: Iterable[str]) -> None:
    for name in names:
        given = None if name in way.shot.motion.absolute else way.shot.schedules.get(name)
        key = _NAMES.get(name, name)
        settings[key] = grammar.to_deforum(given, way.values[name], way.shot.frames)
        way.carry(key, f"schedules.{name}")


def _strength(way: Outgoing, settings: dict[str, Any]) -> None:
    given, values = way.shot.schedules.get("strength"), way.values["strength"]
    shot = way.shot
    if isinstance(given, str):
        given = grammar.turned(given, shot.frames, shot.seed)
    settings["strength_schedule"] = grammar.to_deforum(given, [round(1.0 - v, 12) for v in values], shot.frames)
    way.carry("strength_schedule", "schedules.strength")


def _time(way: Outgoing, settings: dict[str, Any]) -> None:
    cadence = [int(value) for value in way.values["cadence"]]
    if set(cadence) == {1}:
        return
    settings["diffusion_cadence"] = cadence[0]
    flow = way.shot.time.inbetween != "blend"
    settings["optical_flow_cadence"] = "DIS Medium" if flow else "None"
    if cadence[0] > 1:
        way.carry("optical_flow_cadence", "time.inbetween")
    if len(set(cadence)) > 1:
        way.leave("schedules.cadence", f"webui has one cadence: {cadence[0]}, the first frame's.")
    else:
        way.carry("diffusion_cadence", "schedules.cadence")
        way.report.note("webui leaves out the last frames, after the last whole step of the cadence.")


def _seeds(way: Outgoing, settings: dict[str, Any]) -> None:
    shot = way.shot
    settings["seed_behavior"], settings["seed_iter_N"] = shot.seed_behavior, shot.seed_iter_n
    if settings["use_looper"] and "seed" not in shot.schedules:
        settings["seed_behavior"] = "schedule"  # guided images switch it on there
        settings["seed_schedule"] = grammar.to_deforum(None, way.values["seed"], shot.frames, whole=True)
        way.carry("seed_schedule", "schedules.seed")
    elif "seed" in shot.schedules:
        settings["seed_behavior"] = "schedule"
        given = shot.schedules["seed"]
        settings["seed_schedule"] = grammar.to_deforum(given, _written(way, given), shot.frames, whole=True)
        way.carry("seed_schedule", "schedules.seed")
    else:
        way.carry("seed_behavior", "seed_behavior")
        if shot.seed_behavior == "iter":
            way.carry("seed_iter_N", "seed_iter_n")
    mode = shot.feedback.noise_mode
    if mode == "subseed":
        settings["enable_subseed_scheduling"] = True
        _curves(way, settings, ("subseed_strength",))
        subseeds = way.values["subseed"]
        settings["subseed_schedule"] = grammar.to_deforum(
            shot.schedules.get("subseed"), subseeds, shot.frames, whole=True
        )
        way.carry("subseed_schedule", "schedules.subseed")
    if mode in ("fixed", "subseed"):
        way.carry("seed, subseed_strength_schedule", "feedback.noise_mode")
    else:
        way.leave("feedback.noise_mode", "webui's noise is the seed's; seed_behavior iter changes it in each frame.")


def _written(way: Outgoing, given: Any) -> list[float]:
    """The seeds as they are written, -1 for a random one; not the ones that it became."""
    return [float(int(v)) for v in evaluate(given, way.shot.frames, seed=way.shot.seed)]


def _colours(way: Outgoing, settings: dict[str, Any]) -> None:
    feedback, match = way.shot.feedback, way.values["color_match"]
    off = feedback.color_mode == "none" or not any(match)
    settings["color_coherence"] = "None" if off else feedback.color_mode
    if off:
        if feedback.color_mode == "none":
            way.carry("color_coherence", "feedback.color_mode")
        else:
            way.leave("schedules.color_match", "it is written as color_coherence None, which comes to the same.")
        return
    if write_file_colours(way, settings, all(value == 1.0 for value in match)):
        return
    way.carry("color_coherence", "feedback.color_mode")
    if feedback.color_reference == "first":
        way.carry("color_coherence", "feedback.color_reference")
    else:
        way.leave("feedback.color_reference", "webui matches colours to the first frame.")
    if all(value == 1.0 for value in match):
        way.carry("color_coherence", "schedules.color_match")
    else:
        way.leave("schedules.color_match", "webui matches colours wholly.")


def _prompts(way: Outgoing, settings: dict[str, Any]) -> None:
    given = way.flat["prompts"]
    taking_turns = [prompt for prompt in given if prompt.get("weight") is None]
    if len(taking_turns) < len(given):
        way.leave("prompts.weight", "webui has one prompt at a time; those with a weight of their own are left out.")
    blended = settings["animation_mode"] == "Interpolation"
    eases = {prompt.get("ease", "hold") for prompt in taking_turns[:-1]}
    if eases - {"linear" if blended else "hold"}:
        way.leave("prompts.ease", "webui blends prompts in its mode Interpolation, there always and evenly.")
    if any(prompts.NEGATIVE in prompt["text"] or "`" in prompt["text"] for prompt in taking_turns):
        way.report.note("A prompt holds --neg or a backtick, which webui reads as its own.")
    settings["prompts"] = with_words(way.shot, prompts.to_deforum(taking_turns or given))
    if way.shot.loras:
        way.carry("prompts", "loras")
        names = ", ".join(Path(lora.file).name for lora in way.shot.loras)
        way.report.note(f"webui looks for LoRAs in its own folder models/Lora: {names}.")
    way.carry("prompts", "prompts")
