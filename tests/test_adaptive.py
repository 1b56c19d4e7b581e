"""HASHI: the rule to the letter on small maps, Dice on large ones, and every odd shape."""

from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import griddata
from scipy.stats import qmc
from threadpoolctl import threadpool_limits

from he2her2.config import PRESETS, Adaptive, load_config
from he2her2.errors import DamagedSlideError
from he2her2.geometry import Size
from he2her2.method import tumour
from he2her2.models import HalfTurnedEngine
from he2her2.models.encoders.cnn import PAPER_TUMOUR_CNN
from he2her2.preprocessing import adaptive, adaptive_map
from he2her2.preprocessing.adaptive import interpolate, raster

LITERAL, DEFAULT = PRESETS["paper"].adaptive, PRESETS["default"].adaptive
SLIDE = Size(3000, 2500)


def disc(x, y):
    return np.hypot(x - 1700, y - 1100) < 600


def ring(x, y):
    return np.abs(np.hypot(x - 1500, y - 1250) - 675) < 225


def two_foci(x, y):
    return (np.hypot(x - 800, y - 700) < 350) | (np.hypot(x - 2200, y - 1800) < 250)


def at_the_border(x, y):
    return np.hypot(x - 100, y - 1250) < 900


def score_of(tumour):
    return lambda points: tumour(points[:, 0], points[:, 1]).astype(float)


def smooth(points):
    """A score without equal slopes, so that the order of candidates is one."""
    return 0.5 + 0.3 * np.sin(points[:, 0] / 9) * np.cos(points[:, 1] / 7 + 0.3) + 0.002 * points[:, 0]


def dice(first, second):
    return 2 * np.logical_and(first, second).sum() / (first.sum() + second.sum())


def truth(tumour, size):
    return tumour(*np.meshgrid(np.arange(size.w) + 0.5, np.arange(size.h) + 0.5))


def full_map(points, values, size):
    """The released way: every pixel of the mask by `griddata`, nothing beyond the hull, clipped."""
    across, down = np.meshgrid(np.arange(size.w) + 0.5, np.arange(size.h) + 0.5)
    return np.clip(np.nan_to_num(griddata(points, values, (across, down), method="cubic")), 0, 1)


def slow_hashi(score, size, settings):
    """The rule with a full map, its gradient and a loop over points."""
    halton = qmc.Halton(d=2, scramble=True, rng=settings.seed)
    points: list[tuple[float, float]] = []
    values = np.empty(0)
    for iteration in range(settings.iterations):
        drawn = halton.random(settings.candidates if iteration else settings.points)
        fresh: list[tuple[float, float]] = []
        for x, y in drawn:
            centre = (np.floor(x * size.w) + 0.5, np.floor(y * size.h) + 0.5)
            if centre not in points and centre not in fresh:
                fresh.append(centre)
        if iteration:
            down, across = np.gradient(full_map(np.array(points), values, size))
            steepness = [np.hypot(down[int(y), int(x)], across[int(y), int(x)]) for x, y in fresh]
            fresh = [fresh[k] for k in np.argsort(np.negative(steepness), kind="stable")[: settings.points]]
        points += fresh
        values = np.append(values, score(np.array(fresh)))
    return np.array(points), values


@pytest.mark.parametrize("seed", [0, 1])
def test_samples_are_those_of_the_released_rule(seed):
    """100 Halton points, then of 300 those steepest in the full-resolution map: the same points in the same order."""
    settings = replace(LITERAL, iterations=4, seed=seed)

    found = adaptive_map(smooth, Size(90, 70), settings)

    points, values = slow_hashi(smooth, Size(90, 70), settings)
    np.testing.assert_array_equal(found.points, points)
    np.testing.assert_array_equal(found.values, values)


def test_the_coarse_map_is_the_full_one():
    """Dice of at least 0.999 against full-resolution `griddata`, of which the mean difference is small too."""
    found = adaptive_map(score_of(disc), SLIDE, replace(LITERAL, coarse=8))

    full = full_map(found.points, found.values, SLIDE)
    assert dice(found.map >= 0.24, full >= 0.24) >= 0.999
    assert np.abs(found.map - full).mean() < 0.001


def test_drawing_every_node_is_the_full_map():
    """With nodes one pixel apart nothing is enlarged."""
    found = adaptive_map(smooth, Size(60, 40), replace(LITERAL, iterations=2, coarse=1))

    np.testing.assert_allclose(found.map, full_map(found.points, found.values, Size(60, 40)), atol=1e-6)


def test_a_map_is_drawn_in_bands_of_bounded_memory(monkeypatch):
    """Bands of few rows give the same map as all at once."""
    settings = replace(LITERAL, iterations=2)
    whole = adaptive_map(smooth, Size(60, 41), settings).map
    monkeypatch.setattr(adaptive, "_BAND_NODES", 130)

    np.testing.assert_allclose(adaptive_map(smooth, Size(60, 41), settings).map, whole, atol=1e-6)


@pytest.mark.parametrize("tumour", [disc, ring, two_foci])
@pytest.mark.parametrize("settings", [replace(LITERAL, coarse=8), DEFAULT], ids=["paper, coarse", "default"])
def test_two_thousand_samples_find_the_tumour(tumour, settings):
    """Dice of at least 0.95 against the truth, above as many random points."""
    expected = truth(tumour, SLIDE)
    random = np.floor(np.random.default_rng(0).uniform(0, SLIDE, (2000, 2))) + 0.5
    by_chance = raster(interpolate(random, score_of(tumour)(random), settings.surface), SLIDE, 8)

    found = adaptive_map(score_of(tumour), SLIDE, settings)

    assert len(found.points) == 2000
    assert dice(found.map >= 0.24, expected) >= max(0.95, dice(by_chance >= 0.24, expected))


@pytest.mark.parametrize("side", [40, 150])
def test_a_small_slide_loses_none_of_its_samples(side):
    """The map's nodes lie as close as the samples of a crop, a core, a biopsy."""
    size, settings = Size(side, side), replace(DEFAULT, seed=1)

    def tumour(x, y):
        return np.hypot(x - 0.6 * side, y - 0.45 * side) < 0.22 * side

    found, every = (
        adaptive_map(score_of(tumour), size, chosen).map >= 0.5 for chosen in (settings, replace(settings, coarse=1))
    )

    expected = truth(tumour, size)
    assert dice(found, expected) > dice(every, expected) - 0.005


def test_tumour_at_the_border_is_found_from_the_corners():
    """The outermost samples' hull ends before the border; with the corners in it, it does not."""
    expected = truth(at_the_border, SLIDE)

    assert dice(adaptive_map(score_of(at_the_border), SLIDE, DEFAULT).map >= 0.24, expected) > 0.98
    assert dice(adaptive_map(score_of(at_the_border), SLIDE, LITERAL).map >= 0.24, expected) < 0.98


def test_noisy_scores_do_not_overshoot():
    """Between noisy samples the default's linear surface finds the tumour better than the cubic one."""
    noise = np.random.default_rng(0)

    def score(points):
        return np.clip(0.15 + 0.7 * two_foci(*points.T) + noise.normal(0, 0.15, len(points)), 0, 1)

    expected = truth(two_foci, SLIDE)
    linear, cubic = (dice(adaptive_map(score, SLIDE, s).map >= 0.5, expected) for s in (DEFAULT, LITERAL))

    assert linear > 0.95 > cubic + 0.01


def test_corners_are_among_the_first_hundred():
    """They take the place of four points, in the first round."""
    found = adaptive_map(smooth, Size(50, 40), Adaptive(iterations=1))

    assert found.points[:4].tolist() == [[0.5, 0.5], [49.5, 0.5], [0.5, 39.5], [49.5, 39.5]]
    assert len(found.points) <= 100


def test_a_round_is_one_call():
    """Every round hands its hundred points to the score at once."""
    calls = []

    def score(points):
        calls.append(len(points))
        return smooth(points)

    adaptive_map(score, Size(2000, 1500), Adaptive(iterations=5))

    assert calls == [100] * 5


@given(seed=st.integers(0, 1000))
def test_the_same_seed_gives_the_same_map(seed):
    """Two runs agree bit for bit, another seed asks for other points."""
    first, second, other = (
        adaptive_map(smooth, Size(64, 48), Adaptive(iterations=2, seed=s)) for s in (seed, seed, seed + 1)
    )

    np.testing.assert_array_equal(first.map, second.map)
    np.testing.assert_array_equal(first.points, second.points)
    assert first.points.tolist() != other.points.tolist()


@given(width=st.integers(1, 9), height=st.integers(1, 9), literal=st.booleans())
def test_small_masks_are_scored_pixel_by_pixel(width, height, literal):
    """No pixel is asked for twice, all points are pixel centres, and every scored pixel keeps its score."""
    size = Size(width, height)

    found = adaptive_map(lambda p: (p[:, 0] + p[:, 1]) / 20, size, replace(LITERAL if literal else DEFAULT, coarse=1))

    assert found.map.shape == (height, width)
    assert found.map.dtype == np.float32
    assert len({tuple(point) for point in found.points.tolist()}) == len(found.points) == width * height
    columns, rows = found.points.astype(int).T
    np.testing.assert_array_equal(found.points, np.column_stack([columns, rows]) + 0.5)
    np.testing.assert_allclose(found.map[rows, columns], found.values, atol=1e-5)


@given(values=st.lists(st.floats(-3, 3), min_size=4, max_size=4))
def test_the_map_lies_between_nought_and_one(values):
    """Overshoot of the cubic, and scores that are no probabilities, are clipped."""
    found = adaptive_map(lambda p: np.resize(values, len(p)), Size(30, 20), Adaptive(iterations=2))

    assert found.map.min() >= 0
    assert found.map.max() <= 1


def test_unreadable_points_are_dropped_and_not_asked_for_again():
    """NaN scores leave neither point nor value, and cost one question each."""
    asked: list[tuple[float, float]] = []

    def score(points):
        asked.extend(map(tuple, points.tolist()))
        return np.where(points[:, 0] < 10, np.nan, 0.5)

    found = adaptive_map(score, Size(20, 20), Adaptive(iterations=10))

    assert len(set(asked)) == len(asked)
    assert (found.points[:, 0] > 10).all()
    assert not np.isnan(found.values).any()
    assert not np.isnan(found.map).any()


def test_nothing_readable_gives_an_empty_map():
    """No sample: no point, and a map of zeros."""
    found = adaptive_map(lambda p: np.full(len(p), np.nan), Size(20, 10), DEFAULT)

    assert found.points.shape == (0, 2)
    assert not found.map.any()


@pytest.mark.parametrize("line", [lambda p: p[:, 1] == 5.5, lambda p: p[:, 0] == p[:, 1]], ids=["row", "diagonal"])
def test_points_on_one_line_do_not_crash(line):
    """They span no area: each pixel takes the nearest one's score."""
    found = adaptive_map(lambda p: np.where(line(p), 0.7, np.nan), Size(12, 12), Adaptive(iterations=6))

    assert len(found.points) > 2
    np.testing.assert_allclose(found.map, 0.7, atol=1e-6)


def test_it_stops_early_when_the_map_has_settled():
    """A round that changes less than asked is the last; without the setting every round is run."""
    settled = adaptive_map(score_of(disc), SLIDE, Adaptive(stop_change=0.02))
    every = adaptive_map(score_of(disc), SLIDE, DEFAULT)

    assert len(settled.changes) < len(every.changes) == 19
    assert settled.changes[-1] < 0.02 <= min(settled.changes[:-1])
    assert settled.changes == every.changes[: len(settled.changes)]


def test_changes_are_those_of_the_map():
    """A round's change is the mean absolute difference of the maps before and after it."""
    one, two = (adaptive_map(score_of(disc), SLIDE, Adaptive(iterations=n)) for n in (1, 2))

    assert two.changes[0] == pytest.approx(np.abs(two.map - one.map).mean(), rel=0.05)


def test_a_score_of_the_wrong_length_is_refused():
    """One value a point, or the caller has a bug."""
    with pytest.raises(ValueError, match="one value for each of 100 points"):
        adaptive_map(lambda p: np.zeros((len(p), 1)), Size(500, 500), DEFAULT)


def test_an_empty_mask_is_refused():
    """A map needs a pixel."""
    with pytest.raises(ValueError, match="at least one pixel"):
        adaptive_map(smooth, Size(0, 5), DEFAULT)


@pytest.mark.parametrize(("preset", "off_l0"), [("default", 0), ("paper", 0), ("released-code", -16)])
def test_patches_lie_where_the_preset_wants_them(preset, off_l0, monkeypatch):
    """Centred on the mask pixel's centre, or as in the released code on its corner: level-0 px = 32 x - 256.

    By default a patch at the border is moved into the slide, and seen from both sides.
    """
    origins, side_px, engines = [], PAPER_TUMOUR_CNN.input.side_px, set()

    def scored(slide, grid, engine, *_, **__):
        origins.append(grid.origins_l0)
        engines.add(type(engine))
        return np.arange(len(grid)), np.zeros((len(grid), 2), np.float32)

    monkeypatch.setattr(tumour, "infer", scored)
    config = replace(PRESETS[preset], adaptive=replace(PRESETS[preset].adaptive, iterations=2))
    slide = SimpleNamespace(mpp=0.25, effective_mpp=lambda mpp: mpp, size_l0=Size(3200, 2400), keeping=nullcontext)
    engine = SimpleNamespace(card=SimpleNamespace(input=PAPER_TUMOUR_CNN.input))

    found = tumour.find_tumour(cast("Any", slide), cast("Any", engine), np.ones((75, 100), bool), 32.0, config)

    columns_rows = np.floor(found.points).astype(int)
    expected = columns_rows * 32 + 16 + off_l0 - side_px // 2
    if preset == "default":
        assert (expected < 0).any()
        expected = np.clip(expected, 0, np.array([3200, 2400]) - side_px)
    assert np.array_equal(np.concatenate(origins), expected)
    assert engines == {HalfTurnedEngine if preset == "default" else SimpleNamespace}


@pytest.mark.parametrize(("lost_share", "refused"), [(0.5, True), (0.05, False), (0.0, False)])
def test_tissue_that_is_lost_to_the_samples_is_refused(lost_share, refused, monkeypatch):
    """Rounds that follow look elsewhere, so the first tells; what is lost beside the tissue is not held against it."""

    def scored(slide, grid, *_, **__):
        readable = np.flatnonzero(grid.origins_l0[:, 0] >= 3200 * lost_share - 128)
        return readable, np.zeros((len(readable), 2), np.float32)

    monkeypatch.setattr(tumour, "infer", scored)
    slide = SimpleNamespace(
        slide_id="a", mpp=0.25, effective_mpp=lambda mpp: mpp, size_l0=Size(3200, 2400), keeping=nullcontext
    )
    engine = SimpleNamespace(card=SimpleNamespace(input=PAPER_TUMOUR_CNN.input))
    find: Any = partial(
        tumour.find_tumour, cast("Any", slide), cast("Any", engine), px_l0=32.0, config=PRESETS["paper"]
    )
    tissue = np.ones((75, 100), bool)

    if refused:
        with pytest.raises(DamagedSlideError, match=r"a: \d+ of \d+ samples of its tissue cannot be decoded"):
            find(tissue=tissue)
    else:
        find(tissue=tissue)
    tissue[:, : int(100 * lost_share) + 10] = False
    find(tissue=tissue)


def test_no_window_that_shows_tissue_is_left_unseen_at_the_border(monkeypatch):
    """Windows about points there are moved into the slide, and see what lies farther from these."""
    tissue = np.zeros((120, 200), bool)
    tissue[20:30, 20:60] = True

    def scored(_slide, grid, *_, **__):
        return np.arange(len(grid)), np.tile([-1.0, 1.0], (len(grid), 1))

    monkeypatch.setattr(tumour, "infer", scored)
    slide = SimpleNamespace(mpp=0.25, effective_mpp=lambda mpp: mpp, size_l0=Size(6400, 3840), keeping=nullcontext)
    engine = SimpleNamespace(card=SimpleNamespace(input=SimpleNamespace(side_px=128, mpp=2.0)))

    found = tumour.find_tumour(
        cast("Any", slide), cast("Any", engine), tissue, 32.0, load_config(overrides=["adaptive.iterations=2"])
    )

    left_top = np.clip(found.points - 16, 0, np.array([168, 88])).astype(int)
    shows = np.array([tissue[y : y + 32, x : x + 32].any() for x, y in left_top])
    assert (found.points[shows] < 4).any()
    assert (found.values[shows] > 0.5).all()


def test_a_biopsy_on_a_large_scan_has_as_many_samples_as_other_tissue(monkeypatch):
    """By default; they lie on glass, too, which no network looks at."""
    tissue = np.zeros((600, 1600), bool)
    tissue[300:330, 400:1400] = True  # 3 % of the scan
    truth = np.zeros_like(tissue)
    truth[300:330, 700:900] = True
    asked = 0

    def scored(slide, grid, *_, **__):
        nonlocal asked
        asked += len(grid)
        x, y = ((grid.origins_l0 + grid.side_l0 / 2) / 32).astype(int).T
        return np.arange(len(grid)), np.where(truth[y, x], 4.0, -4.0)[:, None] * np.array([-0.5, 0.5])

    monkeypatch.setattr(tumour, "infer", scored)
    slide = SimpleNamespace(mpp=0.25, effective_mpp=lambda mpp: mpp, size_l0=Size(51_200, 19_200), keeping=nullcontext)
    engine = SimpleNamespace(card=SimpleNamespace(input=PAPER_TUMOUR_CNN.input))

    def dice_and_samples(*overrides):
        config = load_config(overrides=overrides)
        found = tumour.find_tumour(cast("Any", slide), cast("Any", engine), tissue, 32.0, config)
        mask = (found.map >= 0.5) & tissue
        x, y = found.points.astype(int).T
        return 2 * (mask & truth).sum() / (mask.sum() + truth.sum()), len(x), tissue[y, x].sum()

    dice, n, in_tissue = dice_and_samples()

    assert 0.9 < n / (2000 * 0.2 / tissue.mean()) <= 1
    assert asked < n / 2
    assert in_tissue > 400
    coarse, n, few = dice_and_samples("adaptive.least_tissue=0")
    assert n <= 2000
    assert few < in_tissue / 3
    assert dice > 0.95 > coarse


def test_the_linear_algebra_of_scipy_is_there_before_its_threads_are_limited(monkeypatch):
    """Libraries that load later have no limit: the first slide's map was drawn by threads that wait for each other."""
    done: list[str] = []

    def noted(name, function):
        def call(*args, **kwargs):
            done.append(name)
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(qmc, "Halton", noted("loaded", qmc.Halton))
    monkeypatch.setattr("he2her2.preprocessing.adaptive.threadpool_limits", noted("limited", threadpool_limits))

    adaptive_map(lambda points: points[:, 0] / 40, Size(40, 30), replace(DEFAULT, iterations=2))

    assert done == ["loaded", "limited"]
