# SPDX-License-Identifier: GPL-3.0-or-later
"""The `koshi` command. Results go to stdout (one JSON object with --json), progress and messages to stderr.

Only the standard library is imported here, so that `koshi --help` is instant; each command imports what it needs.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from . import __version__
from .environment import prepare
from .errors import Cancelled, KoshiError
from .models_command import add_actions
from .paths import cache_folder

_OFFLOAD: dict[str, Any] = {
    "choices": ("auto", "none", "model", "block"),
    "help": "what leaves the card while it is not needed: nothing, whole networks, or all but the block that computes; "
    "default: as much as the free memory calls for",
}
_VRAM: dict[str, Any] = {"type": float, "metavar": "GB", "help": "of the card that may be used; default: what is free"}
_QUANTIZE: dict[str, Any] = {
    "choices": ("none", "fp8", "int8", "nf4"),
    "help": "make the transformer's layers narrow while it is loaded; default: as its files have them",
}
_LORA: dict[str, Any] = {
    "action": "append", "default": [], "metavar": "FILE[:WEIGHT]",
    "help": "a LoRA; may be repeated; in animate a weight may be a schedule, 0:(0), 24:(1)",
}  # fmt: skip
OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


class _Parser(argparse.ArgumentParser):
    """Wrong arguments end in JSON, too, where JSON was asked for."""

    def error(self, message: str) -> NoReturn:
        if "--json" in self.given:
            print(json.dumps({"ok": False, "error": KoshiError("bad_arguments", message).as_dict()}))
        super().error(message)

    given: Sequence[str] = ()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 only when everything was done."""
    prepare()
    arguments = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    for noisy in ("httpx", "httpx2", "httpcore", "httpcore2", "huggingface_hub", "transformers"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    if arguments[:1] == ["serve"]:  # has options of its own
        from bridge_server.server import main as serve

        return serve(arguments[1:])
    _Parser.given = arguments  # argparse makes a parser of its own for each command
    options = _parser().parse_args(arguments)
    try:
        result = _run(options)
    except KoshiError as error:
        return _fail(options, error.as_dict(), str(error), INTERRUPTED if error.code == "cancelled" else FAILED)
    except (KeyboardInterrupt, Cancelled):
        stopped = KoshiError("cancelled", "Stopped.", "Finished frames are kept.")
        return _fail(options, stopped.as_dict(), str(stopped), INTERRUPTED)
    except BrokenPipeError:  # `koshi models | head`: whoever reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would complain when it ends
        return FAILED
    except Exception as error:  # the last boundary: a person sees a sentence, the log file has the rest
        log = _log_traceback()
        message = f"Something unexpected went wrong ({type(error).__name__}: {error}). Details: {log}"
        return _fail(options, KoshiError("internal", message).as_dict(), message)
    if options.json:
        print(json.dumps(result))
    return OK if result["ok"] else FAILED


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="koshi", description="Feedback animation with FLUX, without Blender.")
    parser.add_argument("--version", action="version", version=f"koshi {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--json", action="store_true", help="print one JSON object on stdout")
        return command

    animate = add("animate", "Render a shot to numbered PNG files or to a video.")
    animate.add_argument("shot", type=Path, help="a .koshi.json file")
    animate.add_argument("--out", type=Path, required=True, help="a folder, or a .mp4, .mov or .mkv file")
    animate.add_argument("--motion-only", action="store_true", help="no model: the first picture or a checker, moved")
    animate.add_argument("--lora", **_LORA)
    animate.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: the best there is")
    animate.add_argument("--quantize", **_QUANTIZE)
    animate.add_argument("--offload", **_OFFLOAD)
    animate.add_argument("--vram", **_VRAM)

    generate = add("generate", "Draw one picture.")
    generate.add_argument("prompt", help="what the picture shows")
    generate.add_argument("--out", type=Path, default=Path("output.png"), help="default output.png")
    generate.add_argument("--image", type=Path, action="append", default=[], help="a reference; may be repeated")
    generate.add_argument("--model", help="a model's name, folder or .safetensors file")
    generate.add_argument("--width", type=int, help="default: the model's best, 256 for koshi-tiny")
    generate.add_argument("--height", type=int)
    generate.add_argument("--steps", type=int, help="default: the model's own")
    generate.add_argument("--guidance", type=float, help="default: the model's own")
    generate.add_argument("--negative", default="", help="what it shall not show, for base models")
    generate.add_argument("--quality", choices=("draft", "normal", "final"), help="half, all or twice the steps")
    generate.add_argument("--template", help="a look by name (koshi templates), or a text with {prompt} in it")
    generate.add_argument("--lora", **_LORA)
    generate.add_argument("--seed", type=int, help="default: a random one")
    generate.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: the best there is")
    generate.add_argument("--quantize", **_QUANTIZE)
    generate.add_argument("--offload", **_OFFLOAD)
    generate.add_argument("--vram", **_VRAM)

    feedback = add("feedback", "Zoom into a picture and paint it over, again and again: frames and a video.")
    feedback.add_argument("--prompt", required=True, help="what the pictures show")
    feedback.add_argument("--output", type=Path, required=True, metavar="DIR", help="for the frames and feedback.mp4")
    feedback.add_argument("--model", help="a model's name, such as flux-schnell, or its path")
    feedback.add_argument("--iterations", type=int, default=48, help="frames, the first one included; default 48")
    feedback.add_argument("--zoom", type=float, default=0.006, help="a frame; .006, the default, is 1.006 times")
    feedback.add_argument("--angle", type=float, default=0.0, help="degrees a frame, counter-clockwise")
    feedback.add_argument("--translation-x", type=float, default=0.0, help="pixels a frame, to the right")
    feedback.add_argument("--translation-y", type=float, default=0.0, help="pixels a frame, down")
    feedback.add_argument(
        "--feedback-denoise", type=float, default=0.18, help="how much is made anew, 0 to 1; default .18"
    )
    feedback.add_argument("--noise-amount", type=float, default=0.015, help="grain, .005 to .03; default .015")
    feedback.add_argument("--noise-type", choices=("perlin", "gaussian"), default="perlin")
    feedback.add_argument("--sharpen", type=float, default=0.1, help=".05 to .25; default .1")
    feedback.add_argument("--contrast", type=float, default=1.0, help=".9 to 1.1; default 1")
    feedback.add_argument(
        "--carry", choices=("pixels", "latent"), default="pixels", help="what is moved: the picture, or its latent, "
        "which loses detail faster; default pixels",
    )  # fmt: skip
    feedback.add_argument("--color-mode", choices=("LAB", "RGB", "HSV", "none"), default="LAB")
    feedback.add_argument("--steps", type=int, help="default: the model's own")
    feedback.add_argument("--cfg", type=float, help="guidance; default: the model's own")
    feedback.add_argument("--negative", default="", help="what they shall not show, for base models")
    feedback.add_argument("--init-image", type=Path, help="the picture to begin with")
    feedback.add_argument("--lora", **_LORA)
    feedback.add_argument("--width", type=int, help="default: the model's best, at most 512")
    feedback.add_argument("--height", type=int)
    feedback.add_argument("--fps", type=float, default=12.0, help="default 12")
    feedback.add_argument("--seed", type=int, help="default: a random one")
    feedback.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: the best there is")
    feedback.add_argument("--quantize", **_QUANTIZE)
    feedback.add_argument("--offload", **_OFFLOAD)
    feedback.add_argument("--vram", **_VRAM)

    groups = add("groups", "Measure what the channel groups of a model's latents carry.")
    groups.add_argument("--model", default="koshi-tiny", help="a model's name, folder or file; default koshi-tiny")
    groups.add_argument("--out", type=Path, help="a picture of it, such as groups.png")
    groups.add_argument("--pictures", type=int, default=16, help="how many to measure on, default 16")
    groups.add_argument("--size", type=int, help="their side in pixels; default: half the model's best")
    groups.add_argument("--seed", type=int, default=0)
    groups.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: the best there is")

    convert = add("convert", "Turn projects of Deforum's family and of Parseq into shots, and shots into theirs.")
    convert.add_argument("file", type=Path, metavar="IN", help="settings, a Parseq document, schedules or a shot")
    convert.add_argument("-o", "--out", type=Path, help="the file to write; default: stdout")
    convert.add_argument("--to", choices=("koshi", "deforum", "parseq"), default="koshi", help="default: a shot")
    convert.add_argument("--table", action="store_true", help="every schedule's value at every frame, as CSV")
    convert.add_argument(
        "--strength-convention", choices=("deforum", "denoise"), help="what a high strength does: keep the picture, or "
        "make it anew; default: as in the tool that wrote IN",
    )  # fmt: skip
    convert.add_argument("--dialect", metavar="NAME", help="which tool wrote IN; default: what its keys say")
    convert.add_argument("--report", type=Path, metavar="FILE", help="what was carried, as text or as JSON (.json)")

    add_actions(add("models", "List models, fetch them, check them, remove them."))
    add("templates", "List the prompt templates of each model family.")
    commands.add_parser("serve", help="Run the render server that Blender talks to.", add_help=False)
    add("doctor", "Check this installation.")
    return parser


def _run(options: argparse.Namespace) -> dict[str, Any]:
    if options.command == "animate":
        from .commands import animate

        return animate(
            options.shot, options.out, options.device, motion_only=options.motion_only, loras=options.lora,
            quantize=options.quantize, offload=options.offload, vram=options.vram,
        )  # fmt: skip
    if options.command == "generate":
        from .commands import generate

        return generate(options)
    if options.command == "feedback":
        from .feedback_command import feedback

        return feedback(options)
    if options.command == "convert":
        from .convert import convert

        return convert(options)
    if options.command == "templates":
        from .templates import TEMPLATES, listing

        if not options.json:
            print(listing())
        return {"ok": True, "templates": TEMPLATES}
    if options.command == "groups":
        from .commands import groups

        return groups(options)
    if options.command == "models":
        from .models_command import models

        return models(options)
    from .doctor import examine, print_report

    report = examine()
    if not options.json:
        print_report(report)
    return report


def _fail(options: argparse.Namespace, error: dict[str, Any], message: str, code: int = FAILED) -> int:
    print(f"koshi: {message}", file=sys.stderr)
    if options.json:
        print(json.dumps({"ok": False, "error": error}))
    return code


def _log_traceback() -> Path:
    text = f"{datetime.now().isoformat(timespec='seconds')}\n{traceback.format_exc()}\n"
    for folder in (cache_folder(), Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / "koshi.log").open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError:  # a cache folder that cannot be written must not hide what really went wrong
            continue
        return folder / "koshi.log"
    return Path(os.devnull)
