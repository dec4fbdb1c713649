# SPDX-License-Identifier: GPL-3.0-or-later
"""From what an installer printed to a sentence that helps."""

from __future__ import annotations

import re
from pathlib import Path

from ..protocol import BridgeError

# Looked for in this order: pip ends with "No matching distribution" also when it has reached nobody.
_CAUSES: tuple[tuple[str, str], ...] = (
    ("disk_full", r"No space left on device|Errno 28|not enough space|Disk quota exceeded|WinError 112|os error 28"),
    ("bad_certificate", r"CERTIFICATE_VERIFY_FAILED|SSLError|SSLCertVerificationError|invalid peer certificate"),
    ("bad_proxy", r"ProxyError|Tunnel connection failed|407 Proxy"),
    (
        "no_network",
        r"NewConnectionError|Failed to establish a new connection|name resolution|Name or service not known"
        r"|getaddrinfo failed|Network is unreachable|Connection refused|ConnectTimeout|Read timed out|ReadTimeout"
        r"|RemoteDisconnected|Connection reset|Connection aborted|dns error|error sending request|tcp connect error",
    ),
    ("refused", r"\b(?:401|403) (?:Client )?(?:Error|Unauthorized|Forbidden)|HTTP error 40[13]"),
    (
        "not_offered",
        r"No matching distribution found|Could not find a version|No solution found|has no wheels with"
        r"|no matching distributions available|ResolutionImpossible",  # an index with other versions than were tested
    ),
    ("damaged_download", r"DO NOT MATCH THE HASHES|BadZipFile|is invalid|Hash mismatch|Bad CRC|is not a zip file"),
    ("cannot_write", r"Permission denied|Access is denied|WinError 5\b|Read-only file system|os error 13"),
    ("no_memory", r"MemoryError|Cannot allocate memory|Killed"),
)


def explain(output: str, doing: str, folder: Path, log: Path) -> BridgeError:
    """The error for an installer that failed while `doing` (such as "installing PyTorch"), from what it printed."""
    cause = next((name for name, pattern in _CAUSES if re.search(pattern, output, re.IGNORECASE)), "")
    see = f"The log has the details: {log}."
    match cause:
        case "disk_full":
            return disk_full(folder)
        case "no_network":
            said = _first(r"host='([^']+)'", output)
            whom = f" ({said} does not answer)" if said else ""
            hint = "Check the connection and try again; what has been downloaded is kept. "
            hint += "Where packages come from a mirror, name it as Package Index in Koshi's preferences."
            return BridgeError("no_network", f"The packages cannot be downloaded: no network{whom}.", hint)
        case "bad_certificate":
            hint = "A proxy or a virus scanner may stand in between: name its certificate in pip's settings (cert)."
            return BridgeError(cause, "The package index's certificate is not trusted.", hint)
        case "bad_proxy":
            message = "The proxy does not let the downloads through."
            return BridgeError(cause, message, "Check the system's proxy settings.")
        case "refused":
            hint = f"Check Package Index in Koshi's preferences. {see}"
            return BridgeError(cause, "The package index refuses the download.", hint)
        case "not_offered":
            wanted = _first(r"(?:No matching distribution found for|requested \(constraint\)) (\S+)", output)
            wanted = wanted or "one of the packages"
            return BridgeError(
                cause,
                f"The package index does not offer {wanted} for this system and Python.",
                f"Check Package Index in Koshi's preferences, and pip's configuration. {see}",
            )
        case "damaged_download":
            return BridgeError(cause, "A package arrived damaged.", f"Try again. {see}")
        case "cannot_write":
            return cannot_write(folder)
        case "no_memory":
            return BridgeError(cause, f"Memory ran out while {doing}.", "Close other programs and try again.")
    last = next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "nothing")
    return BridgeError("setup_failed", f"{doing[:1].upper()}{doing[1:]} failed: {last[:300]}", see)


def disk_full(folder: Path) -> BridgeError:
    """The disk has no room left in the middle of it."""
    hint = "Make room on that disk, or choose a folder on another one. What was written is removed again."
    return BridgeError("disk_full", f"The disk is full: {folder} could not be filled.", hint)


def too_small(folder: Path, free: float, needed: float) -> BridgeError:
    """The disk has too little room to begin with; 10^9 bytes."""
    message = f"There is too little room for the backend: {_size(free)} free at {folder}, {_size(needed)} needed."
    return BridgeError("disk_too_small", message, "Make room on that disk, or choose a folder on another one.")


def cannot_write(folder: Path, reason: str = "") -> BridgeError:
    """The folder cannot be written to."""
    why = f" ({reason})" if reason else ""
    return BridgeError("cannot_write", f"{folder} cannot be written to{why}.", "Choose a folder of your own.")


def _size(gigabytes: float) -> str:
    return f"{gigabytes:.1f} GB" if gigabytes >= 1 else f"{gigabytes * 1000:.0f} MB"


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return found[1] if found else ""
