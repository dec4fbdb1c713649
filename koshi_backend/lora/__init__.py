# SPDX-License-Identifier: GPL-3.0-or-later
"""LoRAs: small files that change what a model paints. Read in every published layout, worn at a weight per frame."""
