# SPDX-License-Identifier: GPL-3.0-or-later
"""What pulling a model will fetch: asked of the hub, and checked before the first byte."""

from __future__ import annotations

import fnmatch
import hashlib
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import Cancelled, KoshiError
from .hub_cache import Known, repository_folder
from .pull_file import PARTIAL
from .pull_words import needs_token, too_small
from .registry import PARTS, SETTINGS, ModelInfo

log = logging.getLogger(__name__)

SPARE = 64 << 20  # bytes of a disk that are left free
# Of a part's folder; no pickles, nor what other programs run.
_KINDS = ("*.safetensors", "*.json", "*.txt", "*.jinja", "*.model")
_PAPERS = ("LICENSE*", "README.md")
_ROOT_FILES = {"vae": "ae.safetensors"}  # what stands for a part where a repository has no folder of it


@dataclass
class Plan:
    """What is fetched. files: by their names in the repository. there: bytes of them that are here already."""

    info: ModelInfo
    commit: str
    files: dict[str, Known]
    there: int = 0

    @property
    def total(self) -> int:
        return sum(known.size for known in self.files.values())

    @property
    def place(self) -> Path:
        return repository_folder(self.info.repository)

    @property
    def snapshot(self) -> Path:
        return self.place / "snapshots" / self.commit

    def final(self, name: str) -> Path:
        """Where a file's bytes come to lie: under their hash, or where there are no links under their name."""
        from huggingface_hub.file_download import are_symlinks_supported

        known = self.files[name]
        return (
            self.place / "blobs" / (known.sha256 or known.blob)
            if are_symlinks_supported(self.place.parent)
            else self.snapshot / name
        )

    def url(self, name: str) -> str:
        from huggingface_hub import hf_hub_url

        return hf_hub_url(self.info.repository, name, revision=self.commit)


def plan_pull(info: ModelInfo) -> Plan:
    """Ask the hub what there is to fetch, and whether it may be. Raises KoshiError, and what its client raises."""
    from huggingface_hub import HfApi, constants, get_token
    from huggingface_hub.hf_api import RepoFile

    api, wait = HfApi(), constants.HF_HUB_ETAG_TIMEOUT
    told = api.model_info(info.repository, timeout=wait)
    if told.gated:
        if get_token() is None:
            raise needs_token(info)
        _check_access(api, info)
    commit = str(told.sha)
    listed = {
        entry.path: Known(entry.size, entry.lfs.sha256 if entry.lfs else "", entry.blob_id)
        for entry in api.list_repo_tree(info.repository, recursive=True, revision=commit)
        if isinstance(entry, RepoFile)
    }
    plan = Plan(info, commit, _needed(info, listed))
    for name, known in plan.files.items():
        place = plan.final(name)
        partial = place.with_name(known.sha256 + PARTIAL)
        if place.is_file():
            plan.there += known.size
        elif known.sha256 and partial.is_file():
            plan.there += min(partial.stat().st_size, known.size)
    return plan


def _check_access(api: Any, info: ModelInfo) -> None:
    from huggingface_hub.errors import HfHubHTTPError

    try:
        api.auth_check(info.repository)
    except HfHubHTTPError as error:
        if getattr(error.response, "status_code", 0) != 404:  # a mirror may not know this question
            raise


def _needed(info: ModelInfo, listed: dict[str, Known]) -> dict[str, Known]:
    """Of all files of a repository those that Koshi reads. Raises KoshiError("bad_repository")."""
    chosen, lacking = set(_matching(listed, (*SETTINGS, *_PAPERS))), []
    for part in PARTS[info.traits.family]:
        found = _matching(listed, [f"{part}/{kind}" for kind in _KINDS])
        instead = _ROOT_FILES.get(part, info.file if part == "transformer" else "")
        if any(name.endswith(".safetensors") for name in found) or (found and part.startswith("tokenizer")):
            chosen.update(found)
        elif instead in listed:
            chosen.add(instead)
        else:
            lacking.append(part)
    if lacking:
        raise KoshiError(
            "bad_repository",
            f"{info.repository} lacks {', '.join(lacking)}: it is not laid out as Koshi knows it.",
            "Update Koshi, or fetch the files by hand and give the folder's path as the model.",
        )
    return {name: listed[name] for name in sorted(chosen)}


def _matching(names: dict[str, Known], patterns: list[str] | tuple[str, ...]) -> list[str]:
    """As a folder's own files match: a star stands for no slash."""
    return [
        name
        for name in names
        for pattern in patterns
        if name.count("/") == pattern.count("/") and fnmatch.fnmatchcase(name, pattern)
    ]


def check_room(plan: Plan) -> None:
    """Raises KoshiError("disk_too_small")."""
    folder = plan.place
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    needed, free = plan.total - plan.there, shutil.disk_usage(folder).free
    if needed and free < needed + SPARE:
        raise too_small(folder, free, needed + SPARE)


def drop_damaged(plan: Plan, cancelled: Callable[[], bool]) -> None:
    """Remove what has not the checksum that it should have, so that it is fetched again."""
    for name, known in plan.files.items():
        place, pointer = plan.final(name), plan.snapshot / name
        there = place if place.is_file() else pointer
        if there.is_file() and not matches(there, known, cancelled):
            log.warning("%s is damaged and is fetched anew", name)
            plan.there -= known.size if place.is_file() else 0
            pointer.unlink(missing_ok=True)
            place.unlink(missing_ok=True)


def matches(file: Path, known: Known, cancelled: Callable[[], bool] = lambda: False) -> bool:
    """Whether a file is the one that the hub has: by its SHA-256, or by git's hash where the hub tells no other."""
    if known.size >= 0 and file.stat().st_size != known.size:
        return False
    whole = hashlib.sha256() if known.sha256 else hashlib.sha1(usedforsecurity=False)
    if not known.sha256:
        whole.update(b"blob %d\0" % file.stat().st_size)
    with file.open("rb") as stream:
        while data := stream.read(1 << 20):
            if cancelled():
                raise Cancelled
            whole.update(data)
    return whole.hexdigest() == (known.sha256 or known.blob)
