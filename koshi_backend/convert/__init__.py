# SPDX-License-Identifier: GPL-3.0-or-later
"""Projects of other tools as shots, and shots as projects of other tools: `koshi convert`."""

from .command import convert, read_file, read_settings

__all__ = ["convert", "read_file", "read_settings"]
