# SPDX-License-Identifier: GPL-3.0-or-later
"""Sound under a film: as long as the film, from the file's start, whatever the file is."""

from __future__ import annotations

import json
import wave
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from koshi_backend.api import create_pipeline
from koshi_backend.cli import main
from koshi_backend.errors import KoshiError
from koshi_backend.footage import sound_begins
from koshi_backend.shot import load_shot
from koshi_backend.sound import RATE, Sound
from koshi_backend.video import write_video

PNG = cv2.imencode(".png", np.full((64, 64, 3), 90, np.uint8))[1].tobytes()


def tone(path: Path, seconds: float, rate: int = 44100, channels: int = 1) -> Path:
    """A wave file: 440 Hz, half as loud as can be."""
    wanted = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.repeat((wanted * 32767).astype("<i2"), channels).tobytes())
    return path


def heard(path: Path) -> tuple[float, float, int, np.ndarray]:
    """Of a film: how long the container, and its sound, say they are; how many pictures; the left channel."""
    with av.open(str(path)) as container:
        count = sum(1 for _ in container.decode(container.streams.video[0]))
    with av.open(str(path)) as container:
        stream, whole = container.streams.audio[0], container.duration / 1e6
        length = float(stream.duration * stream.time_base) if stream.duration else whole
        resampler = av.AudioResampler(format="fltp", layout="stereo", rate=RATE)
        blocks = [b.to_ndarray()[0] for frame in container.decode(stream) for b in resampler.resample(frame)]
    return whole, length, count, np.concatenate(blocks)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize(("seconds", "fps", "frames"), [(9, 24.0, 50), (0.5, 12.5, 30), (3, 23.976, 7), (0.2, 8, 1)])
def test_it_is_cut_or_goes_on_in_silence(suffix: str, seconds: float, fps: float, frames: int, tmp_path: Path) -> None:
    """Observed: within a millisecond, which is what containers count in."""
    sound = tone(tmp_path / "tone.wav", seconds)
    assert write_video(tmp_path / f"film{suffix}", [PNG] * frames, fps, sound) == frames
    whole, length, count, samples = heard(tmp_path / f"film{suffix}")
    due = frames / Fraction(fps).limit_denominator(1001)
    assert count == frames
    assert whole == pytest.approx(float(due), abs=0.0015) and length == pytest.approx(float(due), abs=0.0015)
    end = round(min(seconds, float(due)) * RATE)
    assert samples[2000 : end - 2000].std() == pytest.approx(0.5 / 2**0.5, rel=0.03) or end < 6000
    assert np.abs(samples[end + 4000 :]).max(initial=0.0) < 0.01


@pytest.mark.parametrize(("rate", "channels"), [(48000, 2), (8000, 1), (96000, 2)])
def test_its_samples_are_the_file_s(rate: int, channels: int, tmp_path: Path) -> None:
    """In portions of any size, and at the place in time where they are in the file."""
    sound = Sound(tone(tmp_path / "tone.wav", 1.0, rate, channels))
    samples = np.concatenate([sound.read(count) for count in (1, 999, 20000, 0, 27000, 5000)], axis=1)
    assert samples.shape == (2, 53000) and samples.dtype == np.float32
    truth = 0.5 * np.sin(2 * np.pi * 440 * np.arange(48000) / RATE)
    assert np.abs(samples[:, 500:47000] - truth[500:47000]).max() < 0.01
    assert not samples[:, 48200:].any()


def test_what_holds_no_sound_is_refused_before_a_frame_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "noise.mp3").write_bytes(b"no sound at all" * 100)
    write_video(tmp_path / "silent.mp4", [PNG] * 2, 24)
    for name in ("noise.mp3", "silent.mp4", "none.wav"):
        with pytest.raises(KoshiError) as caught:
            write_video(tmp_path / "film.mp4", (pytest.fail("a frame") for _ in range(1)), 24, tmp_path / name)
        assert caught.value.code == "bad_audio" and name in caught.value.message
        assert not (tmp_path / "film.mp4").exists()


def test_a_call_has_sound(tmp_path: Path) -> None:
    """A missing file is refused before anything is made; the film is as long as its pictures."""
    tone(tmp_path / "song.wav", 5.0)
    pipe, call = create_pipeline("koshi-tiny"), {"num_frames": 2, "width": 64, "height": 64, "fps": 4, "seed": 1}
    with pytest.raises(KoshiError, match="audio"):
        pipe.generate_animation("a sea", audio=tmp_path / "gone.wav", output_path=tmp_path / "no.mp4", **call)
    pipe.generate_animation("a sea", audio=tmp_path / "song.wav", output_path=tmp_path / "one.mp4",
                            num_inference_steps=1, **call)  # fmt: skip
    whole, _, count, samples = heard(tmp_path / "one.mp4")
    assert count == 2 and whole == pytest.approx(0.5, abs=0.0015) and samples[2000:20000].std() > 0.2


def test_a_shot_s_sound_is_in_its_film_and_found_beside_it(tmp_path: Path) -> None:
    """An interpolated loop: fps and length of the film are those of all its pictures."""
    tone(tmp_path / "song #1.wav", 5.0)
    shot = {
        "width": 64, "height": 64, "fps": 8, "frames": 3, "steps": 1, "prompts": [{"text": "a sea, photo"}],
        "time": {"loop": "back", "interpolation": 2}, "audio": "song #1.wav",
    }  # fmt: skip
    (tmp_path / "one.koshi.json").write_text(json.dumps(shot))
    assert main(["animate", str(tmp_path / "one.koshi.json"), "--out", str(tmp_path / "one.mp4")]) == 0
    whole, length, count, samples = heard(tmp_path / "one.mp4")
    assert count == 8 and whole == pytest.approx(0.5, abs=0.0015) and length == pytest.approx(0.5, abs=0.0015)
    assert samples[2000:20000].std() > 0.2
    assert main(["animate", str(tmp_path / "one.koshi.json"), "--out", str(tmp_path / "one")]) == 0
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [f"{k:04d}.png" for k in range(8)]


def test_a_film_s_own_sound_begins_with_the_frame_that_is_first(tmp_path: Path) -> None:
    """Half a second of silence, then a tone: from frame 12 of 24 a second on there is only the tone. Another file's
    sound, or a film from its start, plays from its start."""
    with wave.open(str(tmp_path / "late.wav"), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        samples = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE) * (np.arange(RATE) >= RATE // 2)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    film = tmp_path / "film.mp4"
    write_video(film, [PNG] * 24, 24.0, tmp_path / "late.wav")
    for first, audio, begins in ((12, film, 0.5), (0, film, 0.0), (12, tmp_path / "late.wav", 0.0)):
        shot = load_shot({
            "frames": 3, "prompts": [{"text": "a sea"}], "hybrid": {"over": "every"}, "audio": str(audio),
            "guides": {"video": str(film), "video_first": first},
        })  # fmt: skip
        assert sound_begins(shot) == pytest.approx(begins, abs=1e-6)
    loud = Sound(film, 0.5).read(4800)[0]
    assert loud[2000:].std() == pytest.approx(0.5 / 2**0.5, rel=0.05)
    assert np.abs(Sound(film).read(20000)).max() < 0.01
    assert Sound(film, 99.0).read(100).std() == 0.0
