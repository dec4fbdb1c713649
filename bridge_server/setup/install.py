# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes and renews the backend's environment. Runs in the set-up's own program, see __main__.py.

A new environment is made beside the one that counts, and counts once it has drawn a picture: whatever happens on the
way, a backend that worked goes on working.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from .. import protocol
from ..launcher import clean_environment
from ..protocol import BridgeError
from . import place, pythons, requirements, words
from .place import DOWNLOADS, STAMP, TEMPORARY, Stamp
from .progress import Progress
from .running import Runner, Stopped
from .tidy import delete, remove_folder, size_of, stop_backend

_LEASH = Path(__file__).with_name("leash.py")
_RAW_PROGRESS = (24, 1)  # the first pip that can tell bytes to a program
_PIP_INDEXES = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX")
_TRY_THE_NEXT = ("not_offered", "no_network", "refused")  # of uv's choice: PyTorch's builds lie apart from all others


class Installer:
    """One set-up in `folder`, for the backend in `source`. Tells where it is by `runner.tell`.

    KOSHI_PACKAGE_INDEX and KOSHI_TORCH_INDEX: addresses, from Koshi's preferences; empty: pip's configuration alone.
    KOSHI_SETUP_TOOL: "pip" or "uv", whatever else there is.
    """

    def __init__(self, folder: Path, source: Path, runner: Runner) -> None:
        self.folder, self.source, self.runner = folder, source, runner
        self.wanted = requirements.requirements(source)
        self.log = place.log_path()
        self.index = os.environ.get("KOSHI_PACKAGE_INDEX", "").strip()
        self.torch_index = os.environ.get("KOSHI_TORCH_INDEX", "").strip()
        self.uv: Path | None = None
        self._tells_bytes = False  # whether the environment's pip can
        self.python = Path()  # of the environment that is being made

    def install(self) -> str:
        """Make an environment that works; returns a remark, mostly "". Raises BridgeError, or Stopped."""
        before = self._take_possession()
        number = max([0, *place.environments(self.folder)]) + 1
        environment = self.folder / f"env-{number}"
        self.python = place.python_in(environment)
        try:
            if before.environment:
                stop_backend(refuse_if_busy=True, really=False)
            self._sweep(keep=before.environment)
            (self.folder / TEMPORARY).mkdir()
            nvidia = bool(self.wanted.torch) and requirements.has_nvidia_card()
            build = requirements.build_for(nvidia) if self.wanted.torch else "own"
            self._check_room(build)
            version = self._make(environment)
            self._fill(build)
            note = self._check(build)
            if before.environment:
                stop_backend()
            made = Stamp(environment.name, protocol.SOFTWARE.split()[-1], self.wanted.digest, build, version)
            made.write(self.folder)
        except BaseException as error:  # a half-filled environment is of no use to anybody; the error goes on
            if isinstance(error, Stopped):
                self.runner.end("cancelled", "Cancelled")  # said at once; to clear away takes seconds
            self._clear_away(environment, all_of_it=isinstance(error, BridgeError) and error.code == "disk_full")
            if isinstance(error, OSError):
                raise self._os_error(error) from error
            raise
        with suppress(OSError):  # then other Blenders have to be told the folder
            place.remember(self.folder)
        self.runner.tell("Clearing up", fraction=0.98)
        self._sweep(keep=environment.name)
        delete(self.folder / DOWNLOADS)
        return note

    def _take_possession(self) -> Stamp:
        """The folder's stamp; an empty folder gets one, so that it is known as ours from now on."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            stamp = Stamp.read(self.folder)
            if stamp is None and any(name != STAMP for name in os.listdir(self.folder)):
                message = f"{self.folder} holds things that are not Koshi's."
                raise BridgeError("folder_occupied", message, "Choose an empty folder for the backend.")
            if stamp is None:
                stamp = Stamp()
                stamp.write(self.folder)
        except OSError as error:
            raise self._os_error(error) from error
        return stamp

    def _check_room(self, build: str) -> None:
        room = requirements.ROOM[build] * 1e9 - size_of(self.folder / DOWNLOADS)
        free = shutil.disk_usage(self.folder).free
        if free < room:
            raise words.too_small(self.folder, free / 1e9, room / 1e9)

    def _make(self, environment: Path) -> str:
        """Make it, empty; returns its Python's version."""
        self.runner.tell("Looking for a Python", fraction=0.01)
        self.uv = self._find_uv()
        try:
            base: pythons.Base | None = pythons.find_base()
        except BridgeError:
            if self.uv is None:
                raise
            base = None  # uv fetches one
        self.runner.tell("Making the environment", f"Python {base.version}" if base else "", 0.03)
        if self.uv is not None:
            python = str(base.path) if base else pythons.VERSIONS[0]
            self._run([str(self.uv), "venv", "--python", python, str(environment)], "making the environment")
        else:
            assert base is not None
            self._run([str(base.path), "-I", "-m", "venv", str(environment)], "making the environment")
        if base is None:
            found = re.search(r"^version\S*\s*=\s*(\S+)", (environment / "pyvenv.cfg").read_text("utf-8"), re.M)
            return found[1] if found else ""
        return base.version

    def _find_uv(self) -> Path | None:
        """uv, if it can be used: it does not read pip's configuration, so pip's must not name a package index."""
        tool = os.environ.get("KOSHI_SETUP_TOOL", "")
        found = None if tool == "pip" else pythons.find_uv()
        return found if found is None or tool == "uv" or self.index or self._direct() else None

    def _direct(self) -> bool:
        """Whether packages come from where everybody's do: neither Koshi's preferences nor pip's name an index."""
        if self.index or any(name in os.environ for name in _PIP_INDEXES):
            return False
        code, said = self.runner.run([sys.executable, "-I", "-m", "pip", "config", "list"], pythons.clean_environ())
        return code != 0 or not re.search(r"\.(?:extra-)?index-url=|\.find-links=|\.no-index=", said)

    def _fill(self, build: str) -> None:
        """Install PyTorch, then the rest."""
        if self.wanted.torch:
            if self.uv is None:
                self._renew_pip()
            size = {"cuda": "for the NVIDIA card, some 3 GB", "cpu": "for the processor, some 200 MB"}.get(build, "")
            self.runner.tell("Installing PyTorch", size, 0.06)
            attempts = requirements.torch_attempts(self.wanted.torch, build, self.torch_index, self._direct())
            for attempt in attempts:
                by_uv = attempt[0] == requirements.UV_CHOOSES
                try:
                    self._packages(attempt, "installing PyTorch", 0.06, 0.55, self._own_uv() if by_uv else self.uv)
                    break
                except BridgeError as error:
                    mild = _TRY_THE_NEXT if by_uv else _TRY_THE_NEXT[:1]
                    if error.code not in mild or attempt is attempts[-1]:
                        raise
        self.runner.tell("Installing the other packages", fraction=0.55)
        self._packages(list(self.wanted.names), "installing the packages", 0.55, 0.9, self.uv)

    def _own_uv(self) -> Path:
        """uv, put into the environment if the computer has none."""
        if self.uv is not None:
            return self.uv
        self._pip(["--only-binary", ":all:", "uv"], "installing uv", lambda line: None)
        return self.python.with_name("uv.exe" if os.name == "nt" else "uv")

    def _renew_pip(self) -> None:
        code, said = self.runner.run([str(self.python), "-I", "-m", "pip", "--version"], self._environ())
        version = re.match(r"pip (\d+)\.(\d+)", said)
        if code or version is None:
            raise words.explain(said, "starting pip", self.folder, self.log)
        if (int(version[1]), int(version[2])) < _RAW_PROGRESS:
            self.runner.tell("Renewing pip", fraction=0.05)
            with suppress(BridgeError):  # the old one does, only that it tells less; a fault of the network shows again
                self._pip(["--upgrade", "pip"], "renewing pip", lambda line: None)
                self._tells_bytes = True
        else:
            self._tells_bytes = True

    def _packages(self, names: list[str], doing: str, begin: float, end: float, uv: Path | None) -> None:
        progress = Progress()

        def read(line: str) -> None:
            if progress.read(line):
                self.runner.tell(None, progress.detail, begin + (end - begin) * progress.fraction)

        constraints = ["-c", str(self.wanted.constraints)] if self.wanted.constraints else []
        if uv is not None:
            # Like pip, uv is to look into all indexes: PyTorch's holds some of the other packages, too, but old ones.
            command = [str(uv), "pip", "install", "--python", str(self.python)]
            command += ["--index-strategy", "unsafe-best-match", "--only-binary", ":all:"]
            index = ["--index-url", self.index] if self.index else []
            self._run([*command, *index, *constraints, *names], doing, read)
            return
        bar = ["--progress-bar", "raw"] if self._tells_bytes else []
        self._pip([*bar, "--only-binary", ":all:", *constraints, *names], doing, read)

    def _pip(self, arguments: list[str], doing: str, read: Callable[[str], None]) -> None:
        index = ["--index-url", self.index] if self.index else []
        command = [str(self.python), "-I", str(_LEASH), "pip", "install", "--no-input", *index, *arguments]
        self._run(command, doing, read)

    def _run(self, command: list[str], doing: str, read: Callable[[str], None] | None = None) -> None:
        code, said = self.runner.run(command, self._environ(), read)
        if code:
            raise words.explain(said, doing, self.folder, self.log)

    def _environ(self) -> dict[str, str]:
        """All that is fetched and unpacked stays in the folder: the system's own for such things may be small."""
        temporary, downloads = str(self.folder / TEMPORARY), str(self.folder / DOWNLOADS)
        own = {"TMPDIR": temporary, "TEMP": temporary, "TMP": temporary, "PIP_CACHE_DIR": downloads}
        return pythons.clean_environ(**own, UV_CACHE_DIR=downloads, UV_NO_PROGRESS="1")

    def _check(self, build: str) -> str:
        """Let the new environment draw a picture. Returns a remark; raises BridgeError "setup_check_failed"."""
        self.runner.tell("Trying it: koshi-tiny draws a picture", fraction=0.92)
        if build == "own":
            names = [re.split(r"[\s<>=!~\[;(@]", name)[0] for name in self.wanted.names if not name.startswith("-")]
            program = f"import importlib.metadata as m; print([m.version(name) for name in {names!r}])"
            self._run([str(self.python), "-I", "-c", program], "trying the environment")
            return ""
        command = [str(self.python), "-m", "koshi_backend", "doctor", "--json"]
        _, said = self.runner.run(command, clean_environment(self.source))
        report = next((line for line in reversed(said.splitlines()) if line.startswith("{")), "")
        try:
            checks = {check["name"]: check for check in json.loads(report)["checks"]}
        except (ValueError, KeyError, TypeError):
            raise words.explain(said, "trying the environment", self.folder, self.log) from None
        for name in ("packages", "device", "koshi-tiny"):  # the others are not the environment's
            if not checks.get(name, {"ok": False})["ok"]:
                found = checks.get(name, {}).get("found", "it was not tried")
                hint = f"Press the button again; the log has the details: {self.log}."
                raise BridgeError("setup_check_failed", f"The new environment does not work: {found}", hint)
        if build == "cuda" and str(checks["device"]["found"]).startswith("cpu"):
            return (
                "There is an NVIDIA card, but PyTorch cannot use it: Koshi is slow. Renew the card's driver, or set "
                "PyTorch Index for the driver that you have, then press Repair."
            )
        return "; ".join(str(check["found"]) for check in checks.values() if not check["ok"])

    def _sweep(self, keep: str) -> None:
        """Delete environments that do not count, and what was unpacked."""
        for path in place.environments(self.folder).values():
            if path.name != keep:
                delete(path)
        delete(self.folder / TEMPORARY)

    def _clear_away(self, environment: Path, all_of_it: bool) -> None:
        """After a failure: the half-made environment goes, downloads stay for the next time, an empty folder goes."""
        delete(environment)
        delete(self.folder / TEMPORARY)
        downloads = self.folder / DOWNLOADS
        if all_of_it or not size_of(downloads):
            delete(downloads)
        stamp = Stamp.read(self.folder)
        if stamp is not None and not stamp.environment and not downloads.exists():
            remove_folder(self.folder)

    def _os_error(self, error: OSError) -> BridgeError:
        if error.errno in (28, 122):  # ENOSPC, EDQUOT
            return words.disk_full(self.folder)
        return words.cannot_write(self.folder, error.strerror or str(error))
