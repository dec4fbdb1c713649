# SPDX-License-Identifier: GPL-3.0-or-later
"""How loud parts of a sound are, picture by picture, and where its beats are. Numbers only: no bpy.

A song takes a second and an hour of sound half a minute: `levels` and `beats` are generators, which yield how far they
are, 0 to 1, every few milliseconds, and return what they have found.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

import numpy as np

# Hz, from bass drum and bass over voices to cymbals.
BANDS = {'ALL': (20.0, 16000.0), 'LOW': (20.0, 250.0), 'MID': (250.0, 2000.0), 'HIGH': (2000.0, 16000.0)}
WINDOW = 0.04  # seconds that are looked at for a picture at least: 25 Hz apart is what can be told from each other
SILENCE = 1e-4  # of full scale (-80 dB): below it there is nothing
HOP = 0.01  # seconds from one look for beats to the next
REACH = 0.03  # seconds around a beat in which it is the strongest
AROUND = 0.4  # seconds to each side whose median is what a beat rises from
BLOCK = 256  # looks at once: memory stays under 20 MB
ENOUGH = 2**20  # numbers that a median is taken of

Course = Generator[float, None, np.ndarray]


def levels(samples: np.ndarray, rate: int, fps: float, count: int, band: tuple[float, float]) -> Course:
    """How loud a band is in each of `count` pictures from the sound's begin on: float64 [count], 1 for a sine wave of
    full scale.

    samples: one channel in -1..1. band: lowest and highest frequency in Hz. Of each picture counts the time for which
    it is shown, or .04 s around its middle if that is less.
    """
    size = round(rate * max(1.0 / fps, WINDOW))
    middles = np.round((np.arange(count) + 0.5) * rate / fps).astype(int)
    shape = np.hanning(size)
    found = np.zeros(count)
    inside = _inside(size, rate, band)
    for block, pieces in _windows(samples, middles, size):
        power = np.abs(np.fft.rfft(pieces * shape, axis=1)[:, inside]) ** 2
        # Parseval, one side of the spectrum, and a sine's mean square of one half.
        found[block] = np.sqrt(4.0 * power.sum(1) / (size * (shape**2).sum()))
        yield block.stop / count
    return found


def smooth(values: np.ndarray, fps: float, attack: float, release: float) -> np.ndarray:
    """Follow a course of one value a picture with a delay: after `attack` seconds 63 % of a rise is reached, after
    `release` seconds 63 % of a fall; 0 follows at once."""
    up, down = (1.0 - np.exp(-1.0 / (fps * time)) if time > 0.0 else 1.0 for time in (attack, release))
    out, last = np.empty(len(values)), float(values[0]) if len(values) else 0.0
    for k, value in enumerate(values):
        last += (float(value) - last) * (up if value > last else down)
        out[k] = last
    return out


def course(
    loud: np.ndarray, low: float, high: float, gain: float = 1.0, threshold: float = 0.0, peak: float | None = None
) -> np.ndarray:
    """Values from `low`, in silence, to `high`, at the loudest, of levels.

    gain: more of it reaches `high` sooner, and stays there. threshold: 0 to 1, the part of the loudest level that
    counts as silence. peak: what is the loudest (None: of these).
    """
    top = float(loud.max()) if peak is None and len(loud) else float(peak or 0.0)
    if top < SILENCE:
        return np.full(len(loud), low)
    part = np.clip((loud / top - threshold) / max(1.0 - threshold, 1e-6), 0.0, 1.0)
    return low + (high - low) * np.clip(part * gain, 0.0, 1.0)


def beats(
    samples: np.ndarray, rate: int, band: tuple[float, float], sensitivity: float = 0.5, gap: float = 0.15
) -> Generator[float, None, list[float]]:
    """Where a sound begins anew, in seconds: by spectral flux (Bello et al. 2005, "A Tutorial on Onset Detection").

    sensitivity: 0 to 1; more finds weaker beats. gap: seconds between two beats at least; of two the stronger counts.
    """
    size = round(rate * WINDOW)
    middles = np.arange(0, len(samples) + 1, max(round(rate * HOP), 1))
    if len(samples) < size or np.abs(samples).max() < SILENCE:
        return []
    shape, inside = np.hanning(size), _inside(size, rate, band)
    heard = np.zeros((len(middles), int(inside.sum())), np.float32)
    for block, pieces in _windows(samples, middles, size):
        heard[block] = np.abs(np.fft.rfft(pieces * shape, axis=1)[:, inside]) / (shape.sum() / 2.0)
        yield 0.6 * block.stop / len(middles)
    # As ears do: a beat in a quiet part counts as well, as far as it stands out from what hisses all the time.
    hiss = max(1e-3, 3.0 * float(np.median(heard[:: heard.size // ENOUGH + 1])))
    rise, before = np.zeros(len(middles)), heard[:1]
    for begin in range(0, len(middles), BLOCK):
        rows = np.concatenate([before, heard[begin : begin + BLOCK]])
        rise[begin : begin + BLOCK] = np.maximum(np.diff(np.log1p(rows / hiss), axis=0), 0.0).sum(1)
        before = rows[-1:]
        yield 0.6 + 0.1 * begin / len(middles)
    rise[0] = np.log1p(heard[0] / hiss).sum()  # it begins out of silence
    rise[middles > len(samples) - size // 2] = 0.0  # where a sound is cut off it clicks
    return (yield from _peaks(rise, sensitivity, gap))


def _peaks(rise: np.ndarray, sensitivity: float, gap: float) -> Generator[float, None, list[float]]:
    strongest = float(rise.max())
    if strongest <= 0.0:
        return []
    reach, around = round(REACH / HOP), round(AROUND / HOP)
    wanted = (0.5 - 0.45 * sensitivity) * strongest
    found: list[tuple[float, float]] = []  # strength, time
    for k, value in enumerate(rise):
        if k % BLOCK == 0:
            yield 0.7 + 0.3 * k / len(rise)
        near = rise[max(k - reach, 0) : k + reach + 1]
        if value < near.max() or (k and value == rise[k - 1]):
            continue
        if value - np.median(rise[max(k - around, 0) : k + around + 1]) >= wanted:
            found.append((float(value), k * HOP))
    kept: list[float] = []
    for _, time in sorted(found, reverse=True):
        if all(abs(time - other) >= gap for other in kept):
            kept.append(time)
    return sorted(kept)


def _inside(size: int, rate: int, band: tuple[float, float]) -> np.ndarray:
    """Which frequencies of a window's spectrum are in a band; the nearest one at least."""
    frequencies = np.fft.rfftfreq(size, 1.0 / rate)
    inside = (frequencies >= band[0]) & (frequencies <= band[1])
    if not inside.any():
        inside[np.abs(frequencies - (band[0] + band[1]) / 2.0).argmin()] = True
    return inside


def _windows(samples: np.ndarray, middles: np.ndarray, size: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Windows around some places, a block at a time; silence lies before and after the sound."""
    padded = np.concatenate([np.zeros(size, np.float32), samples, np.zeros(2 * size, np.float32)])
    for begin in range(0, len(middles), BLOCK):
        starts = np.minimum(middles[begin : begin + BLOCK] - size // 2 + size, len(padded) - size)
        yield slice(begin, begin + len(starts)), padded[starts[:, None] + np.arange(size)]
