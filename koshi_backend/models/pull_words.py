# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong between here and the hub, in sentences that help."""

from __future__ import annotations

import errno
from pathlib import Path

from ..errors import KoshiError
from .registry import ModelInfo

_ELSEWHERE = "HF_HOME, or Model Folder in Koshi's preferences in Blender"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def page(info: ModelInfo) -> str:
    """The address of a model's page on the hub, where its licence is accepted."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{info.repository}"


def how_to_accept(info: ModelInfo) -> str:
    """What a gated model asks for, before anything is fetched."""
    return f"Accept its licence ({info.licence}) on {page(info)}. {how_to_give_a_token()}"


def how_to_give_a_token() -> str:
    from huggingface_hub import constants

    return (
        f"Make a token that may read on {constants.ENDPOINT}/settings/tokens. Give it with `hf auth login`, in the "
        "environment variable HF_TOKEN, or in Blender as Token in Koshi's preferences, under Models and Frames."
    )


def downloads_off(info: ModelInfo) -> KoshiError:
    return KoshiError(
        "downloads_off",
        f"{info.title} is not on this computer, and downloads are off.",
        "In Blender turn on Preferences > System > Network > Allow Online Access, press Stop in Koshi's own, and "
        "render again. Elsewhere, unset HF_HUB_OFFLINE.",
    )


def needs_token(info: ModelInfo) -> KoshiError:
    """Said before anything is fetched."""
    return KoshiError("gated", f"{info.title} is a gated model, and no token is given.", how_to_accept(info))


def too_small(folder: Path, free: int, needed: int) -> KoshiError:
    return KoshiError(
        "disk_too_small",
        f"There is too little room for the model: {size(free)} free at {folder}, {size(needed)} needed.",
        f"Make room on that disk, or choose a folder on another one: {_ELSEWHERE}.",
    )


def explain(error: Exception, info: ModelInfo, folder: Path) -> KoshiError:
    """The error for what the hub's client or the disk raised. folder: that was written to."""
    causes = _causes(error)
    kinds = {kind.__name__ for cause in causes for kind in type(cause).__mro__}
    status = next((code for cause in causes if (code := _status(cause))), 0)
    number = next((cause.errno for cause in causes if isinstance(cause, OSError) and cause.errno), 0)
    kept = "What was fetched is kept: pull again and it goes on from there."
    if number in _FULL:
        hint = f"Make room on that disk, or choose a folder on another one: {_ELSEWHERE}. {kept}"
        return KoshiError("disk_full", f"The disk is full: {folder} could not take the whole model.", hint)
    if "GatedRepoError" in kinds and status == 403:
        return KoshiError(
            "access_denied",
            f"{info.title} is a gated model, and the account of this token has not been let in.",
            f"With that account, accept its licence ({info.licence}) on {page(info)}; some owners answer only after a "
            "while. A fine-grained token also needs the right to read gated repositories.",
        )
    if "GatedRepoError" in kinds:
        return KoshiError("gated", f"{info.title} is a gated model.", how_to_accept(info))
    if status == 401:
        return KoshiError(
            "token_refused", "The hub does not accept the token that is given (401).", how_to_give_a_token()
        )
    if status == 403:
        return KoshiError(
            "access_denied", f"The hub forbids {info.repository} to this token (403).", how_to_accept(info)
        )
    if "RepositoryNotFoundError" in kinds or status == 404:
        return KoshiError(
            "not_found", f"The hub has no {info.repository}, or not all of its files (404).", f"Look at {page(info)}."
        )
    if status:
        return KoshiError("server_error", f"The hub answers with an error ({status}).", f"Try again later. {kept}")
    if "FileMetadataError" in kinds:
        hint = "Look at proxies in between, and at HF_ENDPOINT if it is set."
        return KoshiError("no_hub", "What answers in the hub's place is none.", hint)
    if "TimeoutException" in kinds and "ConnectTimeout" not in kinds:
        hint = f"The line may be down, or the server overloaded. {kept}"
        return KoshiError("stalled", "The server sends nothing any more.", hint)
    if kinds & {"TransportError", "OfflineModeIsEnabled"}:
        hint = f"Check the network, and proxy and HF_ENDPOINT if they are set. {kept}"
        return KoshiError("no_network", f"{info.title} cannot be fetched: the hub is not reached.", hint)
    if isinstance(error, OSError) and number:
        return KoshiError(
            "cannot_write", f"{folder} cannot be written to ({error.strerror}).", f"Choose another: {_ELSEWHERE}."
        )
    return KoshiError(
        "download_failed",
        f"{info.title} could not be downloaded ({type(error).__name__}: {str(error)[:200]}).",
        f"Check the network, or fetch {info.repository} elsewhere and give the folder's path as the model.",
    )


def _causes(error: BaseException | None) -> list[BaseException]:
    """The client hides what happened behind errors of its own."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _status(error: BaseException) -> int:
    return int(getattr(getattr(error, "response", None), "status_code", 0) or 0)


def size(count: float) -> str:
    """Bytes for people."""
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count:.0f} bytes"
