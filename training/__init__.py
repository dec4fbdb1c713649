# SPDX-License-Identifier: GPL-3.0-or-later
"""The training room of koshi-tiny: `python -m training --help`. training/README.md tells it step by step."""
