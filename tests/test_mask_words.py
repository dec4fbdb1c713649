# SPDX-License-Identifier: GPL-3.0-or-later
"""Masks in words: read as sd-webui-deforum reads them, painted by, and carried in and out."""

from __future__ import annotations

import copy
import json
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_convert_guided import left, read
from test_guided import BASE, changed, keys, render

from koshi_backend.cli import main
from koshi_backend.convert.command import read_settings
from koshi_backend.convert.deforum_out import to_settings
from koshi_backend.convert.report import Report
from koshi_backend.errors import KoshiError
from koshi_backend.mask import Masks
from koshi_backend.mask_words import BINDINGS, EVERYWHERE, Place, read_place, renamed
from koshi_backend.shot import Shot, load_shot, read_shot
from koshi_backend.store import FrameStore

A, B, C = (f"[{name}.png]" for name in "abc")
FILE = __file__  # any file that is there

# ---- the language


def places() -> st.SearchStrategy[Place]:
    leaf = st.sampled_from([EVERYWHERE, Place("video_mask"), Place("init_mask")])
    leaf |= st.sampled_from(["a.png", "clips/b-2.mp4", "x[1].png"]).map(lambda name: Place("file", file=name))
    return st.recursive(
        leaf,
        lambda inner: st.builds(lambda one: Place("!", (one,)), inner)
        | st.builds(lambda op, one, two: Place(op, (one, two)), st.sampled_from(BINDINGS), inner, inner),
        max_leaves=12,
    )


@given(places())
def test_what_is_written_is_read_again(place: Place) -> None:
    assert read_place(str(place)) == place
    assert read_place(f"  {str(place).replace(' ', '')}  ") == place


def truth(place: Place, values: dict[str, bool]) -> bool:
    parts = [truth(part, values) for part in place.parts]
    if not parts:
        return values[place.file]
    return {"!": not parts[0], "&": all(parts), "|": any(parts), "^": parts[0] != parts[-1],
            "\\": parts[0] and not parts[-1]}[place.op]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "true"),
    [
        (f"!{A} & {B}", lambda a, b, c: (not a) and b),
        (f"!({A} & {B})", lambda a, b, c: not (a and b)),
        (f"!!{A}", lambda a, b, c: a),
        (f"{A} | {B} & {C}", lambda a, b, c: a or (b and c)),
        (f"{A} ^ {B} | {C}", lambda a, b, c: a != (b or c)),
        (f"{A} \\ {B} ^ {C}", lambda a, b, c: a and b == c),
        (f"{A} \\ {B} \\ {C}", lambda a, b, c: a and not b and not c),
        (f"{A} - {B} & {C}", lambda a, b, c: a and not (b and c)),
        (f"(({A} & {B}) ^ {C})", lambda a, b, c: (a and b) != c),
    ],
)
def test_words_bind_as_webui_s(words: str, true: Any) -> None:
    """Its order: invert, and, or, xor, difference, each from left to right (composable_masks.py)."""
    for a, b, c in product([False, True], repeat=3):
        assert truth(read_place(words), {"a.png": a, "b.png": b, "c.png": c}) == true(a, b, c)


def test_nothing_is_everywhere() -> None:
    assert read_place("") == read_place("  ") == EVERYWHERE
    assert read_place(f"\\ {A}") == Place("\\", (EVERYWHERE, Place("file", file="a.png")))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("<a face>", "no mask of <a face> (at character 1)"),
        ("{video_mask} & {human_mask}", "no mask of {human_mask} (at character 16)"),
        ("{sky}", "no mask {sky}"),
        (f"({A} & {B}", "not closed (at character 1)"),
        (f"{A})", ") is not expected (at character 8)"),
        (f"{A} {B}", "[b.png] is not expected"),
        (f"{A} &", "ends too soon"),
        ("& " + A, "& is not expected"),
        ("[]", "[] is not expected"),
        ("a.png", "'a.png' means nothing"),
        ("(" * 5000, "within one another"),
        ("!" * 5000 + A, "within one another"),
        *((f" {op} ".join([A] * 66), "more than 64 marks join masks in a row") for op in BINDINGS),
        (" & ".join([A] * 5000), "...' cannot be read: more than 64 marks"),
        (f"{A} \\ {A} ^ {A} | {A} & (" * 17 + A + ")" * 17, "lie within one another"),
    ],
)
def test_what_cannot_be_read_is_said(words: str, says: str) -> None:
    with pytest.raises(KoshiError) as caught:
        read_place(words)
    assert caught.value.code == "bad_mask" and says in caught.value.message and caught.value.hint


@pytest.mark.parametrize(
    "words",
    [
        *(f" {op} ".join([A] * 65) for op in BINDINGS),
        f"{A} \\ {A} ^ {A} | {A} & (" * 16 + A + ")" * 16,
        f"{A} & (" * 63 + f"{A} & {B}" + ")" * 63,
        "!" * 64 + A,
        "(" * 64 + A + ")" * 64,
    ],
)
def test_as_many_as_may_be_go_through_everything(words: str, tmp_path: Path) -> None:
    """What is written again can be read again, also where a conversion writes it; and a shot is painted by it."""
    place = read_place(words)
    assert read_place(str(place)) == place
    assert str(read_place(renamed(f'0:("{words}")', lambda name: name)[4:-2])) == str(place)
    for name in ("a", "b"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((64, 64), 128, np.uint8))
    shot = shot_in(tmp_path, where=f'0:("{words}")', frames=2)
    assert keys(shot) and Masks(shot).at(1) is not None


def test_files_are_renamed_wherever_they_stand() -> None:
    said = renamed('0:("[a.png] & !([b.png] | {video_mask})"), "max_f/2":([a.png])', lambda name: f"m/{name}")
    assert said == '0:("[m/a.png] & !([m/b.png] | {video_mask})"), "max_f/2":("[m/a.png]")'


# ---- in a shot


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("words")
    across = np.tile(np.linspace(0, 255, 64).round().astype(np.uint8), (64, 1))
    half = np.where(np.arange(64) < 32, 255, 0).astype(np.uint8)
    for name, grey in (("x", across), ("y", across.T), ("left", np.tile(half, (64, 1)))):
        cv2.imwrite(str(where / f"{name}.png"), grey)
    noise = cv2.GaussianBlur(np.random.default_rng(3).integers(0, 255, (64, 64, 3), np.uint8), (0, 0), 3)
    cv2.imwrite(str(where / "start.png"), np.dstack([noise, across]))
    return where


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FrameStore:
    return FrameStore(tmp_path_factory.mktemp("store"))


def shot_in(folder: Path, where: str | None = None, noise: str | None = None, **parts: Any) -> Shot:
    document = copy.deepcopy(BASE) | parts
    given = {name: words for name, words in (("where", where), ("noise", noise)) if words is not None}
    document["masking"] = document.get("masking", {}) | given
    path = folder / "shot.koshi.json"
    path.write_text(json.dumps(document))
    return read_shot(path)


def grey(folder: Path, words: str) -> torch.Tensor:
    """The mask, not yet in 255 steps."""
    found = Masks(shot_in(folder, noise=f'0:("{words}")')).noise_at(0)
    return torch.ones(64, 64) if found is None else found


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["&", "|", "^", "\\"]), st.sampled_from(["x", "y", "left"]), st.sampled_from(["x", "y", "left"]))
def test_greys_are_less_of_a_place(folder: Path, op: str, one: str, two: str) -> None:
    """De Morgan's laws and the others hold, and black and white are sets as webui has them."""
    a, b = f"[{one}.png]", f"[{two}.png]"
    found = grey(folder, f"{a} {op} {b}")
    turned = {"&": f"!(!{a} | !{b})", "|": f"!(!{a} & !{b})", "\\": f"{a} & !{b}"}
    same = turned.get(op, f"({a} \\ {b}) | ({b} \\ {a})")
    assert torch.allclose(found, grey(folder, same), atol=1e-6)
    first, second = grey(folder, a), grey(folder, b)
    sure = ((first == 0) | (first == 1)) & ((second == 0) | (second == 1))
    f, s = first[sure].bool(), second[sure].bool()
    sets = {"&": f & s, "|": f | s, "^": f ^ s, "\\": f & ~s}[op]
    assert torch.equal(found[sure].bool(), sets)


def test_what_words_hide_stays_to_the_bit(folder: Path, store: FrameStore) -> None:
    """From frame 2 on the other half is painted."""
    still = {"strength": 0.6, "color_match": 0}
    one = shot_in(folder, '0:("[left.png]"), 2:("{everywhere} \\ [left.png]")', init_image="start.png", schedules=still)
    frames = render(one, store)
    for k in (1, 2, 3):
        kept, new = (slice(32, 64), slice(0, 32)) if k < 2 else (slice(0, 32), slice(32, 64))
        assert np.array_equal(frames[k][:, kept], frames[k - 1][:, kept])
        assert np.abs(frames[k][:, new].astype(int) - frames[k - 1][:, new]).mean() > 1


def test_words_for_what_there_is_anyway_make_no_frame_again(folder: Path) -> None:
    """{video_mask} is guides.mask, {init_mask} the alpha channel, {everywhere} no mask."""
    mask = {"guides": {"mask": "left.png"}, "init_image": "start.png"}
    assert keys(shot_in(folder, "{video_mask}", **mask)) == keys(shot_in(folder, **mask))
    assert keys(shot_in(folder, "[left.png]", init_image="start.png")) == keys(shot_in(folder, **mask))
    alpha = shot_in(folder, init_image="start.png", masking={"alpha": True})
    assert keys(shot_in(folder, "{init_mask}", init_image="start.png")) == keys(alpha)
    assert keys(shot_in(folder, "{everywhere}", noise="{everywhere}")) == keys(shot_in(folder))
    inverted = shot_in(folder, "{everywhere}", masking={"invert": True})
    assert Masks(inverted).at(1) is not None and changed(inverted, shot_in(folder)) == [1, 2, 3]


def test_an_edit_makes_the_frames_from_there_on(folder: Path) -> None:
    first = shot_in(folder, '0:("[x.png]")')
    assert changed(first, shot_in(folder, '0:("[x.png]"), 2:("[x.png] & [y.png]")')) == [2, 3]
    assert changed(first, shot_in(folder, '0:("![y.png]"), 1:("[x.png]")')) == []  # nothing lies under frame 0
    assert changed(shot_in(folder, "[x.png] \\ [y.png]"), shot_in(folder, "[y.png] \\ [x.png]")) == [1, 2, 3]
    noisy = {"schedules": {"noise": "0:(0), 2:(0.1)", "strength": 0.5}}
    assert changed(shot_in(folder, **noisy), shot_in(folder, noise="[x.png]", **noisy)) == [1, 2, 3]
    quiet = {"schedules": {"strength": 0.5}}
    assert changed(shot_in(folder, **quiet), shot_in(folder, noise="[x.png]", **quiet)) == []
    both = [shot_in(folder, noise=words, init_image="start.png", **noisy) for words in ("{init_mask}", "[start.png]")]
    assert changed(*both) == [1, 2, 3]  # the same file, but another channel of it


def test_noise_is_added_where_its_mask_is(folder: Path, store: FrameStore) -> None:
    """Unpainted, so that it is all that changes; in the greys by so much less."""
    table = {"schedules": {"strength": 0, "noise": 0.2, "color_match": 0}, "init_image": "start.png", "frames": 2}
    before, after = (frame.astype(int) for frame in render(shot_in(folder, noise="[left.png]", **table), store))
    assert np.array_equal(before[:, 32:], after[:, 32:]) and np.abs(before - after)[:, :32].mean() > 5
    _, whole = (frame.astype(int) for frame in render(shot_in(folder, **table), store))
    assert np.array_equal(whole[:, :32], after[:, :32])
    _, less = (frame.astype(int) for frame in render(shot_in(folder, noise="[x.png]", **table), store))
    added = np.abs(less - before).mean(axis=(0, 2))
    assert added[:8].mean() < 0.2 * added[-8:].mean()  # observed .06


@pytest.mark.parametrize(
    ("masking", "parts", "field", "says"),
    [
        ({"where": "{video_mask}"}, {}, "masking.where", "guides.mask, of which there is none"),
        ({"where": "{init_mask}"}, {}, "masking.where", "alpha channel, of which there is none"),
        ({"where": "0:({everywhere}), 2:(<face>)"}, {}, "masking.where", "no mask of <face>"),
        ({"noise": "[gone.png]"}, {}, "masking.noise", "there is no file"),
        ({"noise": "[m_####.png]"}, {}, "masking.noise", "there is no file"),
        ({"where": "0:({everywhere}"}, {}, "masking.where", "parenthesis"),
        ({"where": "{everywhere}", "alpha": True}, {"init_image": FILE}, "masking.alpha", "masking.where says"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(masking: dict[str, Any], parts: dict[str, Any], field: str, says: str) -> None:
    with pytest.raises(KoshiError) as caught:
        load_shot(copy.deepcopy(BASE) | parts | {"masking": masking})
    (fault,) = caught.value.problems
    assert fault["field"] == field and says in fault["message"]


# ---- from webui, and back

MASKED = {"use_mask": True, "mask_file": FILE, "max_frames": 6, "noise_schedule": "0: (0.1)"}


def words_of(found: Any) -> tuple[str | None, str | None, str | None]:
    return found.shot.guides.mask, found.shot.masking.where, found.shot.masking.noise


def test_webui_s_words(tmp_path: Path) -> None:
    """{init_mask} is mask_file there, {video_mask} the mask video; noise falls where the mask is."""
    film = tmp_path / "film.mp4"
    film.write_bytes(b"")
    plain = read(**MASKED)
    assert words_of(plain) == (FILE, None, '0:("{video_mask}")') and "use_mask" in plain.report.carried
    said = read(**MASKED, mask_schedule='0: ("!{init_mask}"), 3: ("{everywhere}")', invert_mask=True)
    assert words_of(said) == (
        FILE, '0:("!{video_mask}"), 3:("{everywhere}")', '0:("{video_mask}"), 3:("!{everywhere}")'
    )  # fmt: skip
    assert said.report.carried["mask_schedule"] == "masking.where" and not left(said) & {"mask_schedule"}
    both = read(
        **MASKED, use_mask_video=True, video_mask_path=str(film), mask_schedule='0: ("{video_mask} & {init_mask}")',
        use_noise_mask=True, noise_mask_schedule='0: ("{everywhere}")',
    )  # fmt: skip
    assert words_of(both) == (str(film), f'0:("{{video_mask}} & [{FILE}]")', None)
    assert {"noise_mask_schedule", "use_noise_mask"} <= set(both.report.carried)
    quiet = read(**MASKED | {"noise_schedule": "0: (0)"})
    assert words_of(quiet) == (FILE, None, None)
    alone = read(use_noise_mask=True, noise_mask_schedule=f'0: ("[{FILE}]")', noise_schedule="0: (0.1)")
    assert words_of(alone) == (None, None, f'0:("[{FILE}]")')
    alpha = read(**MASKED, use_alpha_as_mask=True, use_init=True, init_image=FILE,
                 mask_schedule=f'0: ("{{init_mask}} | [{FILE}]")')  # fmt: skip
    assert words_of(alpha)[:2] == (None, f'0:("{{init_mask}} | [{FILE}]")') and not alpha.shot.masking.alpha


@pytest.mark.parametrize("words", ["<a face>", "{human_mask}", "{sky}", "{video_mask} &", "[https://x.org/a.png]"])
def test_words_that_koshi_has_not_are_told(words: str) -> None:
    found = read(**MASKED, mask_schedule=f'0: ("{words}")', use_noise_mask=True, noise_mask_schedule=f'0: ("{words}")')
    assert {"mask_schedule", "noise_mask_schedule", "use_noise_mask"} <= left(found)
    assert words_of(found) == (FILE, None, None)


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("terms", [64, 65, 66])
def test_words_that_grow_too_long_on_their_way_are_told(terms: int, invert: bool) -> None:
    """Without a film {video_mask} is all black there, !{everywhere} here; and invert_mask turns noise round: each is a
    mark more than was read. The rest of the file is carried all the same."""
    words = f'0: ("{" & ".join(["{video_mask}"] * terms)}")'
    found = read(**MASKED, mask_schedule=words, invert_mask=invert)
    guide, where, noise = words_of(found)
    assert (where is not None) == (terms == 64) and (guide is None) == (terms == 64)
    assert (noise is not None) == (terms == 64 and not invert)
    assert ("mask_schedule" in left(found)) == (terms > 64) and "use_mask" in found.report.carried
    assert any("Noise is added all over" in note for note in found.report.notes) == (terms == 64 and invert)
    assert found.shot.masking.invert == invert
    named = read(**MASKED, noise_mask_schedule=words, use_noise_mask=True, invert_mask=invert)
    assert ("noise_mask_schedule" in left(named)) == (terms > 64 or invert) == (named.shot.masking.noise is None)
    still = read(**MASKED, noise_mask_schedule=words.replace("video", "init"), use_noise_mask=True, invert_mask=invert)
    assert ("noise_mask_schedule" in left(still)) == (terms > 65 or (terms == 65 and invert))


@pytest.mark.parametrize("terms", [64, 65])
def test_noise_that_would_not_come_back_stays_behind(terms: int) -> None:
    words = " & ".join([f"[{FILE}]"] * terms)
    shot = load_shot(copy.deepcopy(BASE) | {"masking": {"where": f"[{FILE}]", "noise": words, "invert": True}})
    report = Report("koshi", "", "denoise")
    settings = to_settings(shot, report, Path("."))
    assert settings["use_noise_mask"] == (terms == 64)
    (told,) = [entry["why"] for entry in report.not_carried if entry["key"] == "masking.noise"] or [""]
    assert ("more than 64" in told) == (terms == 65)


@st.composite
def masked_shots(draw: st.DrawFn) -> Shot:
    names = ["{everywhere}", f"[{FILE}]", "{video_mask}"]
    said = st.lists(st.sampled_from(names), min_size=2, max_size=3).flatmap(
        lambda parts: st.sampled_from([" & ", " | ", " ^ ", " \\ "]).map(lambda op: f"!({op.join(parts)})")
    )
    where = draw(st.none() | st.builds(lambda a, b: f'0:("{a}"), 3:("{b}")', said, said))
    noise = draw(st.none() | said.map(lambda a: f'0:("{a}")'))
    return load_shot({
        "frames": 6, "prompts": [{"text": "a"}], "guides": {"mask": FILE}, "schedules": {"noise": 0.1},
        "masking": {"where": where, "noise": noise, "invert": draw(st.booleans())},
    })  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(masked_shots())
def test_out_and_in_again_is_the_same(shot: Shot) -> None:
    report = Report("koshi", "", "denoise")
    back = read_settings(json.loads(json.dumps(to_settings(shot, report, Path(".")))), Path(".")).shot
    assert [(back.mask_at(k), back.noise_mask_at(k)) for k in range(6)] == [
        (shot.mask_at(k), shot.noise_mask_at(k)) for k in range(6)
    ]
    assert back.masking.invert == shot.masking.invert
    told = {*report.carried, *(entry["key"] for entry in report.not_carried)}
    assert {field for field in ("where", "noise") if getattr(shot.masking, field)} <= {t.split(".")[-1] for t in told}


def test_films_in_brackets_stay_behind() -> None:
    shot = load_shot(copy.deepcopy(BASE) | {"masking": {"where": f"[{FILE}]"}})
    shot = shot.model_copy(update={"masking": shot.masking.model_copy(update={"where": "[m_####.png]"})})
    report = Report("koshi", "", "denoise")
    assert to_settings(shot, report, Path("."))["use_mask"] is False
    assert "masking.where" in {entry["key"] for entry in report.not_carried}


def test_relative_names_keep_their_place(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shot_in(folder, "[left.png] & [x.png]", noise="[y.png]")
    moved = tmp_path / "deeper" / "b.koshi.json"
    moved.parent.mkdir()
    assert main(["convert", str(folder / "shot.koshi.json"), "-o", str(moved)]) == 0
    capsys.readouterr()
    assert "[left.png]" not in moved.read_text()
    assert keys(read_shot(moved)) == keys(read_shot(folder / "shot.koshi.json"))
