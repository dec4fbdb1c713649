# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures that give a test a real Blender with Koshi installed.

A test module loads them with `pytest_plugins = ("blender_scripts.fixtures",)`. All Blenders of a session
share one backend (its own cache folder, store and connection file), which is stopped at the end.

A version of Blender that is not there (see conftest) is skipped, unless KOSHI_REQUIRE_BLENDER lists it
("4.5,5.2"): then it fails.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import BLENDERS, ROOT, find_blender_pythons

from bridge_server.client import Client, read_connection
from bridge_server.protocol import BridgeError

SCRIPTS = Path(__file__).resolve().parent
STAND_IN = ROOT / "tools" / "bpy_blender.py"


@dataclass
class Blender:
    """One version of Blender with its own profile; every call is a process of its own."""

    version: str
    python: str
    environment: dict[str, str] = field(repr=False)
    timeout: float = 240.0  # seconds for one run, on a slow machine

    @property
    def profile(self) -> Path:
        """The folder with its preferences and extensions."""
        return Path(self.environment["BLENDER_USER_RESOURCES"])

    def start(self, *arguments: object, **environment: str) -> subprocess.Popen[str]:
        """Start Blender in background; stdout and stderr are pipes. An empty value unsets a variable."""
        variables = {k: v for k, v in {**self.environment, **environment}.items() if v}
        command = [self.python, str(STAND_IN), "-b", *map(str, arguments)]
        return subprocess.Popen(
            command,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            # A test run in the background inherits an ignored Ctrl-C, and Python would leave it so.
            preexec_fn=None if os.name == "nt" else lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def run(
        self, *arguments: object, code: int | None = 0, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run Blender to its end and check its exit code (None: any)."""
        with self.start(*arguments, **environment) as process:
            try:
                out, err = process.communicate(timeout=self.timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                out, err = process.communicate()
                pytest.fail(f"Blender {self.version} did not end: {arguments}\n{out}\n{err}")
        if code is not None:
            assert process.returncode == code, f"{arguments}\n{out}\n{err}"
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def script(self, name: str, *arguments: object, file: Path | None = None, **environment: str) -> Any:
        """Run one of the scripts beside this file; returns what it gave to `inside.result`."""
        opened = [file] if file else []
        ended = self.run(
            *opened, "--python-exit-code", 5, "-P", SCRIPTS / f"{name}.py", "--", *arguments, **environment
        )
        return json.loads(next(line for line in ended.stdout.splitlines() if line.startswith("RESULT "))[7:])

    def scene(self, path: Path, **settings: object) -> Path:
        """Make a .blend to render; `settings` as in make_scene.py."""
        self.scenes({path: settings})
        return path

    def scenes(self, wanted: Mapping[Path, Mapping[str, object]]) -> None:
        """Make several in one start of Blender."""
        given: list[object] = []
        for path, settings in wanted.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            given += [path, json.dumps(settings)]
        self.run("--python-exit-code", 5, "-P", SCRIPTS / "make_scene.py", "--", *given)

    def koshi(
        self, file: Path, command: str, *options: object, code: int | None = 0, **environment: str
    ) -> Any:
        """`blender -b FILE --command koshi COMMAND ... --json`; returns the JSON object."""
        ended = self.run(file, "--command", "koshi", command, *options, "--json", code=code, **environment)
        if code is None:
            assert ended.returncode != 0, ended.stdout
        return json.loads(ended.stdout.splitlines()[-1])


@dataclass(frozen=True)
class Rendered:
    """A shot that was rendered in Blender: its .blend (with the strip), the result, the frames in order."""

    blend: Path
    result: dict[str, Any]
    shot: dict[str, Any]
    frames: list[Path]


@pytest.fixture(scope="session")
def backend_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Environment with a cache, store and connection file of the tests' own; stops the backend at the end."""
    root = tmp_path_factory.mktemp("koshi é")  # people have such names
    environment = {
        **os.environ,
        "KOSHI_CACHE": str(root / "cache"),
        "KOSHI_DATA": str(root / "data"),
        "KOSHI_STORE": str(root / "store"),
        "KOSHI_CONNECTION": str(root / "connection.json"),
        "KOSHI_PYTHON": sys.executable,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    environment.pop("PYTHONPATH", None)
    yield environment
    stop_backend(Path(environment["KOSHI_CONNECTION"]))


def stop_backend(connection: Path) -> None:
    """Stop the backend that `connection` names, if it runs."""
    try:
        with Client(read_connection(connection)) as client:
            client.shutdown()
    except BridgeError as error:
        if error.code not in ("server_not_running", "connection_lost"):
            raise


def _python(version: str) -> str:
    """The Python whose bpy is this version of Blender."""
    found = find_blender_pythons()
    if version in found:
        return str(found[version])
    missing = f"KOSHI_BPY_{version.replace('.', '')} names no Python with Blender {version}: run `make env`"
    if version in os.environ.get("KOSHI_REQUIRE_BLENDER", "").replace(" ", "").split(","):
        pytest.fail(missing)
    pytest.skip(missing)


@pytest.fixture(scope="session")
def extension_zip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The extension, built by the tool that comes with Blender."""
    python = str(next(iter(find_blender_pythons().values()), "")) or _python(BLENDERS[0])
    folder = tmp_path_factory.mktemp("extension")
    arguments = ("--command", "extension", "build", "--source-dir", ROOT, "--output-dir", folder)
    environment = {**os.environ, "BLENDER_USER_RESOURCES": str(folder / "profile")}
    Blender("", python, environment).run(*arguments)
    (made,) = folder.glob("koshi-*.zip")
    return made


@pytest.fixture(scope="session")
def installed(
    backend_environment: dict[str, str], extension_zip: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """The clean profile of a version in which Koshi was installed from its zip. To be copied, not to be used."""
    profiles: dict[str, Path] = {}

    def profile(version: str) -> Path:
        if version not in profiles:
            folder = tmp_path_factory.mktemp(f"installed-{version}")
            made = Blender(version, _python(version), {**backend_environment, "BLENDER_USER_RESOURCES": str(folder)})
            made.run("--command", "extension", "install-file", "--repo", "user_default", "--enable", extension_zip)
            profiles[version] = folder
        return profiles[version]

    return profile


@pytest.fixture(scope="session")
def blender_of(
    backend_environment: dict[str, str], installed: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Blender]:
    """Makes a Blender of a version, with Koshi in a profile of its own; a copy, which costs no start of Blender."""

    def made(version: str) -> Blender:
        python = _python(version)
        profile = tmp_path_factory.mktemp(f"profile-{version}") / "profile"
        shutil.copytree(installed(version), profile)
        return Blender(version, python, {**backend_environment, "BLENDER_USER_RESOURCES": str(profile)})

    return made


@pytest.fixture(scope="session", params=BLENDERS)
def blender(request: pytest.FixtureRequest, blender_of: Callable[[str], Blender]) -> Blender:
    """Each version of Blender in turn. Every file of tests begins with the first version, so pytest makes this again
    for each."""
    return blender_of(request.param)


@pytest.fixture(scope="session")
def rendered(blender: Blender, tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    """Eight frames at 128 x 128, zooming in and turning, made by the real server and worker, and saved."""
    folder = tmp_path_factory.mktemp("rendered")
    seed = int(blender.version.replace(".", ""))  # each version makes frames of its own
    blend = blender.scene(
        folder / "shot.blend", name="My Shot", frames=8, frame_start=5, seed=seed, zoom=1.02, angle=1.0,
        strength=[0.3, 0.45], prompts=[[5, "a calm sea at dawn, photo"], [9, "a forest at day, photo"]],
    )  # fmt: skip
    shot = blender.koshi(blend, "sample")["shot"]
    result = blender.koshi(blend, "render", "--save")
    return Rendered(blend, result, shot, sorted(Path(result["out"]).iterdir()))
