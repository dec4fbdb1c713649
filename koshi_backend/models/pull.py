# SPDX-License-Identifier: GPL-3.0-or-later
"""`koshi models pull`: a model's files from the hub into the Hugging Face cache, and nothing that is not needed.

Before the first byte: is the model gated, is there a token that is let in, is there room. A model counts as installed
once all of it is there and every checksum is right: `refs/main`, by which it is found, is written last.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import Cancelled, KoshiError
from .hub_cache import RECORD, Known, hub_folder, read_record, repository_folder, snapshot_folder
from .identity import remember
from .installed import installed_files
from .left_behind import for_each, stoppable
from .pull_file import PARTIAL, fetch, small_chunks
from .pull_plan import Plan, check_room, drop_damaged, matches, plan_pull
from .pull_progress import Count, Tell, telling
from .pull_words import downloads_off, explain, size
from .registry import ModelInfo

log = logging.getLogger(__name__)

AT_ONCE = 4  # small files


def pull(
    info: ModelInfo,
    tell: Tell = lambda progress: None,
    cancelled: Callable[[], bool] = lambda: False,
    repair: bool = False,
    say: Callable[[str], None] = log.info,
) -> dict[str, Any]:
    """Fetch a model, or the rest of it. One that is here whole is not asked for again.

    tell: how far it is, a few times a second, from a thread of its own. cancelled: whether to stop, which is asked ten
    times a second, also while nothing comes; Ctrl-C stops it as soon. repair: read what is here, and fetch again what
    has not the checksum that it should have. say: a sentence before it starts.

    Returns {"ok", "model", "repository", "folder", "commit", "files", "bytes", "fetched", "seconds"}: fetched are the
    bytes that were not here before. Raises KoshiError "downloads_off", "gated", "token_refused", "access_denied",
    "not_found", "disk_too_small", "disk_full", "cannot_write", "no_network", "stalled", "server_error", "bad_checksum",
    "busy", "bad_repository"; Cancelled. What was fetched is kept in every case.
    """
    begin = time.monotonic()
    there = installed_files(info)
    if not info.repository or (there is not None and not repair):
        assert there is not None
        folder = there.name if there.name.is_dir() else there.name.parent
        held = [file for file in folder.rglob("*") if file.is_file()]
        return _report(info, folder, "", len(held), sum(file.stat().st_size for file in held), 0, begin)
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:  # Blender starts the backend so where its online access is off
        raise downloads_off(info)
    try:
        with _alone(info):
            plan = stoppable(lambda left: _planned(info, repair, left), cancelled)
            check_room(plan)
            say(
                f"{info.title}: {size(plan.total - plan.there)} of {size(plan.total)} in {len(plan.files)} files to "
                f"{plan.place}; licence {info.licence}"
            )
            with telling(plan, tell) as count, _quiet_client():
                stoppable(lambda left: _fetch(plan, count, left), cancelled)
            hashes = _check_small(plan)
            if cancelled():
                raise Cancelled
            _finish(plan, hashes)
    except (KoshiError, Cancelled):
        raise
    except Exception as error:  # of several HTTP libraries, and of the disk
        log.debug("the pull of %s failed", info.repository, exc_info=True)
        raise explain(error, info, repository_folder(info.repository)) from error
    fetched = max(0, count.fetched)
    return _report(info, plan.snapshot, plan.commit, len(plan.files), plan.total, fetched, begin)


def _report(
    info: ModelInfo, folder: Path, commit: str, files: int, total: int, fetched: int, begin: float
) -> dict[str, Any]:
    return {
        "ok": True, "model": info.name, "repository": info.repository or None, "folder": str(folder),
        "commit": commit or folder.name if info.repository else None, "files": files, "bytes": total,
        "fetched": fetched, "seconds": round(time.monotonic() - begin, 2),
    }  # fmt: skip


# --- the files --------------------------------------------------------------------------------------------------


def _planned(info: ModelInfo, repair: bool, left: Callable[[], bool]) -> Plan:
    plan = plan_pull(info)
    if repair and not left():
        drop_damaged(plan, left)
    return plan


def _fetch(plan: Plan, count: Count, left: Callable[[], bool]) -> None:
    _fetch_large(plan, count, left)
    _fetch_rest(plan, count, left)


def _fetch_large(plan: Plan, count: Count, left: Callable[[], bool]) -> None:
    for name, known in plan.files.items():
        if not known.sha256:
            continue
        place = plan.final(name)
        if place.is_file() or (plan.snapshot / name).is_file():
            count.begin(name, known.size)
            count.arrived(known.size)
            continue
        partial = place.with_name(known.sha256 + PARTIAL)
        count.begin(name, partial.stat().st_size if partial.is_file() else 0)
        fetch(plan.url(name), name, place, known.size, known.sha256, count.arrived, left)


def _fetch_rest(plan: Plan, count: Count, left: Callable[[], bool]) -> None:
    """The small files, and the snapshot's links to the large ones, by the hub's client."""
    from huggingface_hub import hf_hub_download

    small = [name for name, known in plan.files.items() if not known.sha256]
    new = sum(plan.files[name].size for name in small if not (plan.snapshot / name).is_file())
    count.begin("the small files")
    # Not by snapshot_download: Python would wait for its threads, however long nothing comes, before it ends.
    for_each(
        plan.files, lambda name: hf_hub_download(plan.info.repository, name, revision=plan.commit), AT_ONCE, left
    )
    count.done = plan.total
    count.fetched += new


@contextmanager
def _quiet_client() -> Iterator[None]:
    """The hub's client without its progress bars, and with chunks that are small enough to see it move."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    silent = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        with small_chunks():
            yield
    finally:
        if not silent:
            enable_progress_bars()


def _check_small(plan: Plan) -> dict[Path, str]:
    """Check the small files; returns the checksums of all files that are worth remembering."""
    for name, known in plan.files.items():
        file = plan.snapshot / name
        if not file.is_file() or (not known.sha256 and not matches(file, known)):
            file.unlink(missing_ok=True)
            plan.final(name).unlink(missing_ok=True)
            raise KoshiError(
                "bad_checksum",
                f"{name} arrived damaged: its checksum is not the one that the hub gives. The file was removed.",
                "Pull again. If it comes damaged again, a proxy or a virus scanner may change it on its way.",
            )
    return {plan.snapshot / name: known.sha256 for name, known in plan.files.items() if known.sha256}


def _finish(plan: Plan, hashes: dict[Path, str]) -> None:
    """Let it be found: the record, then the name of the commit."""
    files = {name: known._asdict() for name, known in plan.files.items()}
    record = {"model": plan.info.name, "repository": plan.info.repository, "commit": plan.commit, "files": files}
    _write(plan.place / RECORD, json.dumps(record, indent=1))
    remember(hashes)
    _write(plan.place / "refs" / "main", plan.commit)


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.chmod(aside, 0o644)
        os.replace(aside, file)
    except BaseException:  # leave no half file; the error goes on
        Path(aside).unlink(missing_ok=True)
        raise


@contextmanager
def _alone(info: ModelInfo) -> Iterator[None]:
    """Raises KoshiError("busy") while another program pulls this model."""
    from filelock import Timeout
    from huggingface_hub.utils import WeakFileLock

    folder = hub_folder() / ".locks" / repository_folder(info.repository).name
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with WeakFileLock(folder / "koshi-pull.lock", timeout=0.2):
            yield
    except Timeout as error:
        raise KoshiError(
            "busy", f"Another program is fetching {info.title} just now.", "Wait for it, or cancel it there."
        ) from error


# --- the way back -----------------------------------------------------------------------------------------------


def remove(info: ModelInfo) -> dict[str, Any]:
    """Delete a model's repository from the cache, whole or not, with what was broken off.

    Returns {"ok", "model", "folder", "freed"}: freed in bytes. Raises KoshiError "embedded", "not_installed", "busy",
    "cannot_write".
    """
    if not info.repository:
        raise KoshiError("embedded", f"{info.title}: it is part of Koshi and stays.", "It takes 25 MB.")
    place = repository_folder(info.repository)
    if not place.is_dir():
        raise KoshiError("not_installed", f"{info.title} is not on this computer.", f"It would be at {place}.")
    try:
        with _alone(info):
            held = [file for file in place.rglob("*") if file.is_file() and not file.is_symlink()]
            freed = sum(file.stat().st_size for file in held)
            (place / "refs" / "main").unlink(missing_ok=True)  # first: half of a model must not count as one
            shutil.rmtree(place)
    except OSError as error:
        hint = "Stop the programs that use it, and see to it that you may write there."
        raise KoshiError("cannot_write", f"{place} cannot be deleted ({error.strerror}).", hint) from error
    return {"ok": True, "model": info.name, "folder": str(place), "freed": freed}


def recorded(info: ModelInfo) -> dict[str, Known]:
    """What the hub said of an installed model's files; empty where nothing is known."""
    folder = snapshot_folder(info.repository) if info.repository else None
    return {} if folder is None else read_record(folder)
