# SPDX-License-Identifier: GPL-3.0-or-later
"""The training room's judge: every measure can fail, and what was measured is kept, shown and never mixed up."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from PIL import Image
from torch import Tensor

sys.path.insert(0, str(ROOT))  # the training room is no installed package

from koshi_backend.feedback import shown_tokens
from koshi_backend.models.model import Reference
from koshi_backend.motion import MotionField, deforum_matrix, resample
from training import examine_pictures, judge, sheet
from training.__main__ import main
from training.captions import SCENES, STYLES, Spec, held_out
from training.card import write_card
from training.encoder import LinearEncoder, fit
from training.examine import SECTIONS, Numbers, judge_folder
from training.examine_parts import autoencoder
from training.examine_pictures import (
    CHUNK,
    Compared,
    Described,
    Looker,
    adherence_rows,
    comb_rows,
    describe,
    distance_rows,
    sharpness_rows,
    variety,
)
from training.examine_references import chain, followed, loop, place
from training.figures import Figures, Row, summary
from training.judge import Judge, probe, right, shrink, train_judge
from training.measures import LinearInverse, comb, drift, flow_error, frechet, octave, psnr, psnr_bytes
from training.painter import Painter, batches
from training.reality import SHAPES, SQUARE, Wish, as_tensor, classes, even_specs, real_pictures, wishes
from training.stage import Room

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small pictures gain nothing from more, and waiting for a busy core costs much."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def painter(tiny: Path) -> Painter:
    return Painter.load(tiny, CPU)


@pytest.fixture(scope="module")
def photos() -> Tensor:
    """Real photos without tiles or drawn outlines, one of each scene."""
    wished = [Wish(Spec(scene, "day"), "", 7) for scene in SCENES]
    return as_tensor(list(real_pictures(wished, moved=False)))


def row(rows: Sequence[Row], name: str) -> Row:
    return next(r for r in rows if r.name == name)


# ---- measures


def test_sharpness_falls_with_blur_and_rises_with_ringing(photos: Tensor) -> None:
    soft = F.avg_pool2d(photos, 3, 1, 1, count_include_pad=False)
    assert float((octave(soft) / octave(photos)).max()) < 0.8
    assert float((octave((2 * photos - soft).clamp(0, 1)) / octave(photos)).min()) > 1.25
    # Shifting a picture round and round changes nothing inside it: the window hides the seam.
    assert octave(photos.roll(100, 3)).mean() == pytest.approx(float(octave(photos).mean()), rel=0.5)


@pytest.mark.parametrize("period", [8, 16])
def test_a_comb_too_faint_to_see_is_found(photos: Tensor, period: int) -> None:
    grid = torch.zeros(256, 256)
    steps = (torch.arange(256) // (period // 2) % 2).float()
    grid += steps + steps[:, None]
    marked = ((photos + 0.012 * (grid - 1)).clamp(0, 1) * 255).round() / 255
    gain = comb(marked, period) - comb(photos, period)
    assert float(gain.mean().exp()) > 1.15  # observed: 4.8 and 1.8
    other = comb(photos + 0.05 * torch.rand(photos.shape[-1]), period) - comb(photos, period)
    assert abs(float(other.mean())) < abs(float(gain.mean()))


def test_a_comb_of_thin_lines_shows_in_the_overtones(photos: Tensor) -> None:
    marked = photos.clone()
    marked[..., ::16] += 0.03
    assert float((comb(marked, 16, True) - comb(photos, 16, True)).mean().exp()) > 1.5


def test_frechet_distance_of_known_sets() -> None:
    v = torch.randn(400, 8, generator=torch.Generator().manual_seed(1))
    assert frechet(v, v) == pytest.approx(0, abs=1e-6)
    assert frechet(v, v + 1) == pytest.approx(8, abs=1e-3)
    assert frechet(v, 2 * v) == pytest.approx(
        float(torch.cov(v.double().T).trace() + v.mean(0).square().sum()), rel=1e-4
    )


def test_motion_is_measured_not_believed(photos: Tensor) -> None:
    picture = photos[4:5]
    matrix = deforum_matrix(256, 256, zoom=1.05, angle=2.0, translation_x=4.0)
    moved = resample(picture, MotionField.affine(matrix, 256, 256))
    before, after = ((x[0].permute(1, 2, 0) * 255 + 0.5).byte().numpy() for x in (picture, moved))
    assert flow_error(before, after, matrix).error < 0.3
    aside = np.array([[1.0, 0, 3], [0, 1, 0], [0, 0, 1]]) @ matrix
    assert flow_error(before, after, aside).error == pytest.approx(3, abs=0.3)
    assert flow_error(before, before, matrix).error == pytest.approx(flow_error(before, after, matrix).moved, rel=0.3)


def test_drift_is_a_share_of_the_first_picture(photos: Tensor) -> None:
    x = photos[0] * 0.5
    assert drift(x, x) == (0, 0)
    assert drift(x, x * 1.1).contrast == pytest.approx(0.1, abs=1e-3)
    tinted = x + torch.tensor([0.05, 0, 0]).view(3, 1, 1) * x.mean()
    assert drift(x, tinted).colour == pytest.approx(0.05, abs=1e-3)


def test_the_linear_inverse_is_that_of_the_projection(photos: Tensor) -> None:
    linear, x = LinearEncoder(fit(24)), photos * 2 - 1
    found = LinearInverse(linear(x), x)
    assert psnr(found(linear(x)), x) >= psnr(linear.decode(linear(x)), x) - 0.01
    # Latents that say nothing give the mean picture.
    blind = LinearInverse(torch.randn(8, 32, 32, 32), x)
    assert psnr(blind(torch.randn(8, 32, 32, 32)), x) < 20


def test_psnr_of_bytes() -> None:
    a = np.zeros((8, 8, 3), np.uint8)
    assert psnr_bytes(a, a) == 99
    assert psnr_bytes(a, a + 1) == pytest.approx(48.13, abs=0.01)


# ---- what is asked for


def test_wishes_go_evenly_through_everything() -> None:
    specs = even_specs(320, np.random.default_rng(0))
    assert len({spec[:3] for spec in specs[:160]}) == len({spec[:3] for spec in specs[160:]}) == 160
    assert sum(map(held_out, specs[:160])) == sum(map(held_out, specs[160:])) > 8
    wished = wishes(400, 3, shaped=0.3)
    assert {w.size for w in wished} == {SQUARE, *SHAPES}
    assert 0.6 < sum(w.size == SQUARE for w in wished) / 400 < 0.8
    assert len({w.seed for w in wished} | {w.seed for w in wishes(400, 4)}) == 800
    order = [k for places in batches(wished) for k in places]
    assert sorted(order) == list(range(400))
    assert all(len({wished[k].size for k in places}) == 1 for places in batches(wished))


def test_adherence_sees_a_single_bad_scene() -> None:
    wished = wishes(480, 5)
    truth = classes(wished)
    assert summary({"": adherence_rows({"read": truth}, wished)}).endswith(" hold.")
    read = truth.clone()
    cities = (truth[:, 0] == SCENES.index("city")).nonzero()[:, 0]
    read[cities[:8], 0] = SCENES.index("sea")
    rows = adherence_rows({"read": read}, wished)
    assert row(rows, "scene").value == pytest.approx(1 - 8 / 480)
    assert row(rows, "scene of city").holds is False
    assert row(rows, "scene of sea").holds is True
    assert row(rows, "never seen together: scene").value > 0.9


# ---- the judge


def test_pictures_of_every_shape_are_seen_at_one_size() -> None:
    for width, height in (SQUARE, *SHAPES, (128, 128), (512, 288), (96, 64)):
        x = shrink(torch.rand(1, 3, height, width))
        assert x.shape[2] * x.shape[3] == pytest.approx(128 * 128, rel=0.02)
        assert x.shape[3] / x.shape[2] == pytest.approx(width / height, rel=0.03)
        assert Judge().look(torch.rand(2, 3, height, width))[1].shape == (2, 3)


def test_the_judge_learns_and_is_kept_until_the_world_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room(tmp_path, CPU, torch.float32)
    first = train_judge(room, steps=12, pictures=48)
    x, y = next(iter(judge.shown(wishes(48, judge.TRAINED, 0), "").values()))
    assert right(first.look(x.float() / 255)[1], y)["scene"] > right(Judge().look(x.float() / 255)[1], y)["scene"]
    assert train_judge(room, steps=12, pictures=48).name() == first.name()
    today = probe()
    monkeypatch.setattr(judge, "probe", lambda: today + 0.01)
    assert train_judge(room, steps=2, pictures=48).name() != first.name()


# ---- drawing


@pytest.mark.parametrize("with_reference", [False, True])
def test_a_batch_is_what_the_model_draws_one_by_one(painter: Painter, photos: Tensor, with_reference: bool) -> None:
    wished = [Wish(Spec("city"), "a modern city at night, photo", 3, (96, 64)), Wish(Spec("sea"), "sea", 4, (96, 64))]
    model, field = painter.model, MotionField.affine(deforum_matrix(96, 64, translation_x=20.0), 96, 64)
    shown = shown_tokens(field.valid) if with_reference else None
    reference = photos[:2, :, :64, :96] if with_reference else None
    together = painter.draw(wished, 2, reference, shown)
    for k, w in enumerate(wished):
        known = [Reference(model.encode_picture(reference[k : k + 1]), shown)] if reference is not None else []
        alone = model.decode(model.denoise(w.words, model.noise(w.seed, *w.size), steps=2, references=known))
        assert float((together[k] - alone[0]).abs().max()) < 1e-3  # observed: 2e-6
    assert float((together[0] - together[1]).abs().mean()) > 0.05


class Copier(Painter):
    """Draws the reference, moved aside by some pixels."""

    aside = 0

    def draw(
        self, wished: Sequence[Wish], steps: int = 4, reference: Tensor | None = None, shown: Tensor | None = None
    ) -> Tensor:
        assert reference is not None
        return reference.roll(self.aside, 3)


def test_following_a_reference_can_fail(painter: Painter) -> None:
    copier, matrix = Copier(painter.model), deforum_matrix(256, 256, zoom=1.06)
    wished = [place(n, 1) for n in (1, 4)]
    assert all(ours.error < 0.5 for ours, _ in followed(copier, wished, matrix))
    copier.aside = 2
    for ours, best in followed(copier, wished, matrix):
        assert ours.error == pytest.approx(2, abs=0.5)
        assert best.error < 0.5


class OneSeed(Painter):
    """Draws every wish from the same noise."""

    def noise(self, wished: Sequence[Wish]) -> Tensor:
        return super().noise([w._replace(seed=1) for w in wished])


def test_variety_of_one_seed_is_none(painter: Painter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine_pictures, "SCENES", SCENES[:1])
    rows = variety(Judge(), OneSeed(painter.model), 3)
    assert all(r.value < 1e-3 and r.holds is False for r in rows)


# ---- sets of pictures


def test_a_stopped_judge_loses_a_chunk_at_most(tmp_path: Path) -> None:
    net, wished = Judge(), [Wish(Spec("sea"), "", k, (64, 64)) for k in range(CHUNK + 5)]
    asked: list[int] = []

    def draw(batch: Sequence[Wish]) -> Tensor:
        asked.extend(w.seed for w in batch)
        if len(asked) > CHUNK and len(asked) < 2 * CHUNK and max(asked) >= CHUNK + 4 and fail:
            raise KeyboardInterrupt
        return torch.stack([torch.full((3, 64, 64), w.seed / 100) for w in batch])

    look, fail = Looker(net, tmp_path), True
    with pytest.raises(KeyboardInterrupt):
        look.set("x", wished, draw)
    fail = False
    before = len(asked)
    seen = look.set("x", wished, draw)
    assert sorted(asked[before:]) == list(range(CHUNK, CHUNK + 5))
    assert len(seen["features"]) == len(wished)
    assert torch.equal(seen["features"], look.set("x", wished, draw)["features"])
    whole = describe(net, torch.stack([torch.full((3, 64, 64), w.seed / 100) for w in wished]))
    assert torch.allclose(seen["features"], whole["features"], atol=1e-5)


def test_sets_of_pictures_are_held_against_their_kind(painter: Painter) -> None:
    torch.manual_seed(0)
    net, kinds = Judge(), wishes(40, 22)

    def of(x: Tensor) -> Described:
        return describe(net, x)

    real, others = (as_tensor(list(real_pictures(wishes(40, seed)))) for seed in (23, 24))
    tiles = of(as_tensor(list(real_pictures([w for w in kinds if w.spec.style == "mosaic"], moved=False))))
    fair = Compared(kinds, of(others), of(real), of(others), of(others))
    soft = F.avg_pool2d(others, 3, 1, 1, count_include_pad=False)
    lines = others.clone()
    lines[..., ::8] += 0.03
    assert row(sharpness_rows(dataclasses.replace(fair, drawn=of(soft))), "generated").holds is False
    ratio = row(sharpness_rows(fair), "other real ones")
    assert row(sharpness_rows(fair), "generated").value == ratio.value
    assert row(comb_rows(dataclasses.replace(fair, drawn=of(lines)), tiles), "8 pixels: photo").holds is False
    distances = distance_rows(fair)
    assert row(distances, "generated to real").holds is True
    assert row(distances, "rebuilt to the very same").value == pytest.approx(0, abs=1e-6)
    strange = fair.drawn | {"features": fair.drawn["features"] + 1}
    assert row(distance_rows(dataclasses.replace(fair, drawn=strange)), "generated to real").holds is False


def test_the_autoencoder_s_figures(painter: Painter) -> None:
    net = copy.deepcopy(painter.model.autoencoder)
    rows = autoencoder(net, 5, 1, 8, {2: 28.0, 5: 26.0})
    assert {r.unit for r in rows} == {"dB"}
    assert row(rows, "after 5 rounds").value < row(rows, "after 2 rounds").value
    assert {f"one round: {style}" for style in STYLES} <= {r.name for r in rows}
    dict(net.named_parameters())["decoder.conv_out.bias"].data += 0.1  # a little too bright
    worse = autoencoder(net, 5, 1, 8, {2: 28.0})
    assert row(worse, "one round").holds is False
    assert row(worse, "after 2 rounds").value < row(worse, "one round").value


def test_a_shot_fed_back_is_resumed_and_measured(painter: Painter, tiny: Path, tmp_path: Path) -> None:
    wish = place(0, 70_000)
    first = chain(tiny, wish, 2, CPU, tmp_path)
    again = chain(tiny, wish, 3, CPU, tmp_path)
    assert [f.stored for f in again] == [True, True, False]
    assert [f.png for f in again[:2]] == [f.png for f in first]
    rows = loop(Judge(), tiny, 1, 3, CPU, tmp_path)
    assert row(rows, "contrast, furthest").value == row(rows, f"contrast: {wish.words}").value > 0
    assert row(rows, "mean colour, furthest").most == 0.05


# ---- what is kept


def test_limits() -> None:
    assert Row("x", 0.5).holds is None
    assert Row("x", 0.99, least=0.99).holds is True
    assert Row("x", 0.989, least=0.99).holds is False
    assert Row("x", 1.26, 0.8, 1.25).holds is False
    assert Row("x", 0.5, 0.8, 1.25, "%").shown() == ("50.0 %", "≥ 80.0 %, ≤ 125.0 %", "NO")


def test_sections_are_kept_for_the_same_model_and_numbers_only(tmp_path: Path) -> None:
    path, made = tmp_path / "judge.json", []

    def make() -> list[Row]:
        made.append(1)
        return [Row("x", len(made), least=2)]

    def measure(model: str, settings: dict, again: bool = False) -> None:
        Figures(path, model, tmp_path, CPU).measure("section", settings, make, again)

    for n, (model, settings, again) in enumerate(
        [("a", {"n": 1}, False), ("a", {"n": 2}, False), ("a", {"n": 2}, True), ("b", {"n": 2}, False)], 1
    ):
        measure(model, settings, again)
        measure(model, settings)
        assert len(made) == n
    section = json.loads(path.read_text(encoding="utf-8"))["sections"]["section"]
    assert section["rows"][0]["holds"] is True
    assert {"date", "commit", "torch", "machine", "seconds", "settings"} <= section.keys()
    path.write_text('{"model": "b", "sect', encoding="utf-8")  # cut short
    measure("b", {"n": 2})
    assert len(made) == 5


def test_two_judges_at_once_lose_nothing(tmp_path: Path) -> None:
    first, second = (Figures(tmp_path / "judge.json", "a", tmp_path, CPU) for _ in range(2))
    first.measure("loop", {}, lambda: [Row("x", 1)])
    second.measure("steps", {}, lambda: [Row("y", 2)])
    known = json.loads((tmp_path / "judge.json").read_text(encoding="utf-8"))["sections"]
    assert set(known) == set(second.rows()) == {"loop", "steps"}


def test_fewer_pictures_mean_fewer_of_everything() -> None:
    full, quick = Numbers.scaled(500), Numbers.scaled(20)
    assert full == Numbers()
    for name, value in dataclasses.asdict(quick).items():
        assert value <= getattr(full, name)
    assert quick.compared == 80
    assert quick.frames == 240
    assert Numbers.after(20, CPU).judge_steps < Numbers.after(360, CPU).judge_steps
    assert Numbers.after(360, CPU) == full
    assert Numbers.scaled(1000).compared == 4000


@pytest.fixture
def judged(tiny: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of koshi-tiny and the folder of a run that has judged a little of it."""
    folder, run = tmp_path / "model", tmp_path / "run"
    shutil.copytree(tiny, folder)
    numbers = dataclasses.replace(Numbers.scaled(8), judge_steps=2, judge_pictures=48, asked=4)
    room = Room(run, CPU, torch.float32)
    before = sorted(folder.rglob("*"))
    judge_folder(room, folder, numbers, ("adherence", "steps"))
    assert sorted(folder.rglob("*")) == before  # the judge only reads
    return folder, run


def test_judging_then_the_card(judged: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder, run = judged
    text = write_card(folder, run).read_text(encoding="utf-8")
    known = json.loads((folder / "training" / "judge.json").read_text(encoding="utf-8"))["sections"]
    missed = [r for section in known.values() for r in section["rows"] if r["holds"] is False]
    right = {r["name"]: r["value"] for r in known["adherence"]["rows"]}
    lost = {r["name"].split(": ")[1]: r["value"] for r in known["steps"]["rows"] if r["name"].startswith("lost")}
    assert lost == {name: pytest.approx(1 - right[name], abs=1e-5) for name in ("scene", "time", "style")}  # no teacher
    assert missed, "a judge of two steps cannot be content"
    assert text.count("**NO**") == len(missed)
    assert "GPL-3.0-or-later" in text
    assert f"Not measured: {', '.join(s for s in SECTIONS if s not in known)}." in text
    shutil.rmtree(run)
    assert write_card(folder, run).read_text(encoding="utf-8") == text  # from the figures beside it
    weights = folder / "koshi.json"
    weights.write_text(weights.read_text(encoding="utf-8") + " ", encoding="utf-8")
    with pytest.raises(FileNotFoundError, match="no figures"):
        write_card(folder, run)  # of another model
    assert main(["judge", "--folder", str(folder), "--run", str(run), "--only", "colour"]) == 2
    assert "no such section" in capsys.readouterr().out
    assert main(["judge", "--folder", str(run), "--run", str(run)]) == 1


class Flat(Painter):
    """Draws noise, which no file format makes small."""

    def draw(
        self, wished: Sequence[Wish], steps: int = 4, reference: Tensor | None = None, shown: Tensor | None = None
    ) -> Tensor:
        return F.avg_pool2d(torch.rand(len(wished), 3, 258, 258), 3, 1)


def test_the_sheet_has_every_picture_and_stays_small(painter: Painter, tmp_path: Path) -> None:
    asked = sheet.wished(0)
    assert len({w.spec[:3] for w in asked}) == 160
    for name in ("a.png", "a.jpg"):
        path = sheet.draw_sheet(Flat(painter.model), tmp_path / name)
        assert path.stat().st_size <= sheet.LARGEST
        with Image.open(path) as image:
            assert image.width < image.height
    with pytest.raises(ValueError, match="png"):
        sheet.draw_sheet(painter, tmp_path / "a.gif")
    colours = torch.linspace(0, 1, 160).view(160, 1, 1, 1).expand(160, 3, 32, 32)
    image = np.asarray(sheet.laid_out(colours, 32))
    first = image[sheet.TOP + 16, sheet.LEFT + 16 :: 32 + sheet.GAP][:8]
    assert np.array_equal(first[:, 0], (colours[:8, 0, 0, 0] * 255 + 0.5).byte().numpy())
