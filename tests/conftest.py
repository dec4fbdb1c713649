# SPDX-License-Identifier: GPL-3.0-or-later
"""What all tests share: folders of their own, koshi-tiny, and the Blender versions that are there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes is the machine's business: benchmarks measure, tests do not.
settings.register_profile("koshi", deadline=None)
settings.load_profile("koshi")

# Modules of fixtures that tests also import from.
pytest.register_assert_rewrite("blender_scripts.fixtures", "bridge_helpers")

ROOT = Path(__file__).resolve().parent.parent
BLENDERS = ("4.2", "4.5", "5.0", "5.1", "5.2")


def versions(*usual: str) -> tuple[str, ...]:
    """The versions of Blender that a test runs in which has most of its work outside of Blender: the usual ones, or,
    where KOSHI_EVERY_VERSION is set, all. Everything else runs in all of them anyway."""
    return BLENDERS if os.environ.get("KOSHI_EVERY_VERSION") else usual


def in_versions(*usual: str) -> pytest.MarkDecorator:
    """Mark a test that takes the fixture `blender` to run in `versions(*usual)`."""
    return pytest.mark.parametrize("blender", versions(*usual), indirect=True)


# Read by torch when it is first imported, here or in a worker process: small models gain nothing from more
# threads, and tests must leave a shared machine some room.
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def set_own_folders(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Point everything Koshi writes outside its output folder into `folder`."""
    patch.setenv("KOSHI_STORE", str(folder / "store"))
    patch.setenv("KOSHI_CACHE", str(folder / "cache"))
    patch.setenv("KOSHI_DATA", str(folder / "data"))
    patch.setenv("KOSHI_CONNECTION", str(folder / "connection.json"))


@pytest.fixture(scope="session", autouse=True)
def session_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No fixture of a wider scope than one test may reach the user's own cache or backend either."""
    with pytest.MonkeyPatch.context() as patch:
        set_own_folders(patch, tmp_path_factory.mktemp("koshi-session"))
        yield


@pytest.fixture(autouse=True)
def own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Every test has a store, a cache and a connection file of its own."""
    set_own_folders(monkeypatch, tmp_path_factory.mktemp("koshi"))


@pytest.fixture(scope="session")
def tiny() -> Path:
    """The folder of koshi-tiny, the small trained model that ships with the project."""
    folder = ROOT / "koshi_backend" / "weights" / "koshi-tiny"
    assert (folder / "model_index.json").is_file(), f"koshi-tiny's weights are missing from {folder}"
    return folder


def find_blender_pythons() -> dict[str, Path]:
    """Interpreters with Blender as a module, by version: KOSHI_BPY_45 and so on, else this checkout's."""
    found = {}
    for version in BLENDERS:
        inside = "Scripts/python.exe" if os.name == "nt" else "bin/python"
        default = ROOT / f".venv-blender-{version}" / inside
        path = Path(os.environ.get(f"KOSHI_BPY_{version.replace('.', '')}") or default)
        if path.exists():
            found[version] = path
    return found


@pytest.fixture(scope="session")
def blender_pythons() -> dict[str, Path]:
    """The Blender versions that are there; fails if one that KOSHI_REQUIRE_BLENDER names is not."""
    found = find_blender_pythons()
    required = [
        part.strip() for part in os.environ.get("KOSHI_REQUIRE_BLENDER", "").split(",") if part.strip()
    ]
    missing = [version for version in required if version not in found]
    if missing:
        pytest.fail(f"KOSHI_REQUIRE_BLENDER names {', '.join(missing)}, which `make test` has not set up.")
    return found


@pytest.fixture(scope="session", params=BLENDERS)
def blender_python(request: pytest.FixtureRequest, blender_pythons: dict[str, Path]) -> Path:
    """The interpreter of each Blender version in turn; one that is neither there nor required is skipped."""
    version: str = request.param
    if version not in blender_pythons:
        pytest.skip(f"Blender {version} is not set up here (`make test` sets it up where it can)")
    return blender_pythons[version]
