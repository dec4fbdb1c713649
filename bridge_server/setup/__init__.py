# SPDX-License-Identifier: GPL-3.0-or-later
"""Setting the backend up: a folder with an environment of its own, made by a program of its own.

Standard library only.
"""
