# SPDX-License-Identifier: GPL-3.0-or-later
"""Both ends of Koshi's socket: wire protocol, client, server, and the worker process that renders."""
