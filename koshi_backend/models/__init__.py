# SPDX-License-Identifier: GPL-3.0-or-later
"""The networks: one module per part, a registry of names, and the loader of files."""
