# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m koshi_backend` is the `koshi` command."""

from .cli import main

raise SystemExit(main())
