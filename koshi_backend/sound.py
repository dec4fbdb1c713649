# SPDX-License-Identifier: GPL-3.0-or-later
"""Sound for a film: any file that FFmpeg's libraries read, as the samples of a track just as long as the film."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from .errors import KoshiError

RATE = 48000  # samples a second of a film's track
LAYOUT = "stereo"
CHANNELS = 2
_TRY = "Give a sound file, such as .wav, .mp3, .flac or .m4a, or a film with sound."


class Sound:
    """The samples of a file from `begin` seconds on; after its end there is silence.

    Raises KoshiError("bad_audio"), here and in `read`, for a file that holds no sound that can be read.
    """

    def __init__(self, path: Path | str, begin: float = 0.0) -> None:
        self.path = path
        self._rest = np.zeros((CHANNELS, 0), np.float32)
        self._blocks = self._decode()
        self._rest = self._more()  # a file without sound is known before anything is rendered
        self._skip(round(begin * RATE))

    def read(self, count: int) -> np.ndarray:
        """The next `count` samples, float32 [2, count]."""
        blocks, have = [self._rest], self._rest.shape[1]
        while have < count and (block := self._more()).shape[1]:
            blocks.append(block)
            have += block.shape[1]
        whole = np.concatenate([*blocks, np.zeros((CHANNELS, max(count - have, 0)), np.float32)], axis=1)
        self._rest = whole[:, count:]
        return np.ascontiguousarray(whole[:, :count])

    def _skip(self, count: int) -> None:
        while count and self._rest.shape[1]:
            gone = min(count, self._rest.shape[1])
            self._rest = self._rest[:, gone:]
            count -= gone
            if not self._rest.shape[1]:
                self._rest = self._more()

    def _more(self) -> np.ndarray:
        try:
            return next(self._blocks, np.zeros((CHANNELS, 0), np.float32))
        except (av.FFmpegError, OSError) as error:
            raise KoshiError("bad_audio", f"The sound {self.path} cannot be read: {error}.", _TRY) from error

    def _decode(self) -> Iterator[np.ndarray]:
        with av.open(str(self.path)) as container:
            if not container.streams.audio:
                raise KoshiError("bad_audio", f"{self.path} holds no sound.", _TRY)
            stream = container.streams.audio[0]
            # One channel goes to both sides as it is: FFmpeg would make it quieter by 3 dB.
            layout = "mono" if stream.channels == 1 else LAYOUT
            resampler = av.AudioResampler(format="fltp", layout=layout, rate=RATE)
            for frame in container.decode(stream):
                frame.pts = None  # one after the other, whatever the file says of its times
                yield from (_both_sides(block) for block in resampler.resample(frame))
            yield from (_both_sides(block) for block in resampler.resample(None))


def _both_sides(block: av.AudioFrame) -> np.ndarray:
    samples = block.to_ndarray()
    return samples if len(samples) == CHANNELS else np.repeat(samples, CHANNELS, axis=0)
