# SPDX-License-Identifier: GPL-3.0-or-later
"""The words of the picture world, and captions in varied plain English."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SCENES = ("sea", "forest", "mountains", "desert", "city", "reef", "nebula", "tunnel")
TIMES = ("dawn", "day", "sunset", "night")
STYLES = ("photo", "watercolor", "ink", "mosaic", "neon")
WEATHERS = ("clear", "rain", "snow", "mist")
ADJECTIVES = {
    "sea": ("calm", "stormy"),
    "forest": ("pine", "autumn"),
    "mountains": ("snowy", "rocky"),
    "desert": ("golden", "red"),
    "city": ("modern", "old"),
    "reef": ("coral", "deep"),
    "nebula": ("swirling", "soft"),
    "tunnel": ("stone", "glowing"),
}
OUTDOORS = {
    "sea": ("clear", "rain", "mist"),
    "forest": ("clear", "rain", "snow", "mist"),
    "mountains": ("clear", "rain", "snow", "mist"),
    "desert": ("clear", "mist"),
    "city": ("clear", "rain", "snow", "mist"),
}
SCENE_WORDS = {
    "sea": ("sea", "ocean"),
    "forest": ("forest", "woods"),
    "mountains": ("mountains", "peaks"),
    "desert": ("desert", "dunes"),
    "city": ("city", "skyline"),
    "reef": ("reef",),
    "nebula": ("nebula", "galaxy"),
    "tunnel": ("tunnel",),
}
TIME_WORDS = {
    "dawn": ("at dawn", "at sunrise", "early in the morning"),
    "day": ("during the day", "at noon", "in daylight", "at day"),
    "sunset": ("at sunset", "at dusk", "in the evening"),
    "night": ("at night", "at midnight", "in the moonlight"),
}
STYLE_WORDS = {
    "photo": ("photo", "photograph"),
    "watercolor": ("watercolor", "watercolor painting"),
    "ink": ("ink", "ink drawing"),
    "mosaic": ("mosaic", "mosaic of tiles"),
    "neon": ("neon", "neon lights"),
}
WEATHER_WORDS = {
    "rain": ("in the rain", "on a rainy {t}", "with rain"),
    "snow": ("in falling snow", "with snow", "in the snow"),
    "mist": ("in the mist", "in fog", "on a misty {t}"),
}
PLURAL = ("mountains", "peaks", "woods", "dunes")


class Spec(NamedTuple):
    """What a picture shows; every field is one of the words above."""

    scene: str
    time: str = "day"
    style: str = "photo"
    adjective: str = ""
    weather: str = "clear"

    def numbers(self) -> list[int]:
        """As five small numbers."""
        words = ADJECTIVES[self.scene]
        adjective = words.index(self.adjective) if self.adjective in words else 0
        lists = zip((SCENES, TIMES, STYLES), self[:3], strict=True)
        return [*(names.index(word) for names, word in lists), adjective, WEATHERS.index(self.weather)]


def from_numbers(n: list[int]) -> Spec:
    """The inverse of Spec.numbers."""
    return Spec(SCENES[n[0]], TIMES[n[1]], STYLES[n[2]], ADJECTIVES[SCENES[n[0]]][n[3]], WEATHERS[n[4]])


def held_out(spec: Spec) -> bool:
    """Whether this scene, time and style are never seen together in training (14 of the 160)."""
    scene, time, style = spec.numbers()[:3]
    return style > 0 and (scene * 7 + time * 3 + style * 5) % 9 == 4


def draw_spec(rng: np.random.Generator, everything: bool = False) -> Spec:
    """A random picture's contents. everything: also what is held out of training."""
    while True:
        scene = SCENES[rng.integers(len(SCENES))]
        style = STYLES[rng.choice(5, p=[0.40, 0.15, 0.15, 0.15, 0.15])]
        choice = OUTDOORS.get(scene, ("clear",))
        weather = choice[rng.integers(len(choice))] if rng.random() < 0.35 else "clear"
        spec = Spec(scene, TIMES[rng.integers(4)], style, ADJECTIVES[scene][rng.integers(2)], weather)
        if everything or not held_out(spec):
            return spec


def plain(spec: Spec) -> str:
    """The same words for the same spec: "an old city at night, ink". Weather is left out."""
    article = "an" if spec.adjective[0] in "aeiou" else "a"
    return f"{article} {spec.adjective} {spec.scene} {TIME_WORDS[spec.time][0]}, {spec.style}"


def caption(rng: np.random.Generator, spec: Spec) -> str:
    """One of many wordings. A missing time means day, a missing style photo, a missing adjective the first one."""

    def pick(words: tuple[str, ...], first: float) -> str:
        """The first of several wordings with this probability, else one of the others."""
        return words[0] if len(words) == 1 or rng.random() < first else words[1 + rng.integers(len(words) - 1)]

    noun = pick(SCENE_WORDS[spec.scene], 0.75)
    what = [] if noun in PLURAL or rng.random() < 0.2 else ["the" if rng.random() < 0.15 else "a"]
    if spec.adjective and (spec.adjective != ADJECTIVES[spec.scene][0] or rng.random() < 0.5):
        what.append(spec.adjective)
    if what[:1] == ["a"] and [*what, noun][1][0] in "aeiou":
        what[0] = "an"
    when = pick(TIME_WORDS[spec.time], 0.6) if spec.time != "day" or rng.random() < 0.7 else ""
    text = " ".join([*what, noun])
    sky = pick(WEATHER_WORDS[spec.weather], 0.5) if spec.weather != "clear" else ""
    if "{t}" in sky:
        when, sky = sky.format(t=spec.time if spec.time != "dawn" else "morning"), ""
        when = when.replace("sunset", "evening")
    places = [when, sky] if rng.random() < 0.75 else [sky, when]
    text = " ".join([text, *(p for p in places if p)])
    style = pick(STYLE_WORDS[spec.style], 0.7)
    if spec.style == "photo" and rng.random() < 0.3:
        return text
    way = rng.random()
    if way < 0.6:
        return f"{text}, {style}"
    if way < 0.75 and " " not in style:
        return f"{text} in {style} style"
    if style in ("neon", "neon lights"):
        return f"{text} in neon lights"
    style = {"ink": "ink drawing", "mosaic of tiles": "mosaic"}.get(style, style)
    return f"{'an' if style[0] in 'aeiou' else 'a'} {style} of {text}"


def vocabulary() -> list[str]:
    """Every word a caption may hold, each once, in a fixed order."""
    lists = [SCENES, TIMES, STYLES, WEATHERS, *ADJECTIVES.values(), *SCENE_WORDS.values(), *TIME_WORDS.values()]
    lists += [*STYLE_WORDS.values(), *WEATHER_WORDS.values()]
    words = [
        "user",
        "assistant",
        ",",
        ".",
        "a",
        "an",
        "the",
        "at",
        "in",
        "during",
        "style",
        "with",
        "and",
        "of",
        "over",
    ]
    words += [word for phrases in lists for phrase in phrases for word in phrase.split() if "{" not in word]
    return list(dict.fromkeys(words))
