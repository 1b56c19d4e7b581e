"""`he2her2 test tumour`: a network on patch sets and annotated slides, beside trivial rivals and on the shift sheet."""

import csv
import io
import json
import math
import shutil
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from shapely import box
from shapely.geometry import mapping
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from he2her2.config import PAPER_THRESHOLD, Adaptive, Runtime
from he2her2.datasets import PatchSet, open_patch_set, patch_sets
from he2her2.errors import EvaluationError, PatchError
from he2her2.evaluation.tumour.networks import NO_NETWORK, TumourNetwork, assign_networks, open_networks
from he2her2.evaluation.tumour.patches import NETWORK, UNCHANGED, evaluate_patches
from he2her2.evaluation.tumour.rivals import (
    ALL_TISSUE,
    DARKNESS,
    HISTOGRAM,
    Lesson,
    Looks,
    best_limit,
    learn_rivals,
    lessons_of_folds,
)
from he2her2.evaluation.tumour.slides import _figures, _share_within
from he2her2.evaluation.tumour.windows import probabilities, window_corners
from he2her2.geometry import TileGrid
from he2her2.manifest import UsedPatients, hashed_patient
from he2her2.models import Card, InputSpec
from he2her2.models.encoders.cnn import COMPACT_TUMOUR_CNN
from he2her2.preprocessing import SHIFT_SHEET
from he2her2.statistics import BinaryCounts, Difference
from tests.tissue_slides import tissue_pixels, write_tissue

SPEC = InputSpec(4.0, 10, 10, "rgb")


class RedEngine:
    """Calls tumour what is dark in red: logits of other and tumour."""

    def __init__(self, spec: InputSpec = SPEC) -> None:
        self.card = Card(replace(COMPACT_TUMOUR_CNN, input=spec), trained=True, notice="")
        self.seen: list[np.ndarray] = []

    def __call__(self, pixels):
        self.seen.append(pixels)
        darkness = (128 - pixels[..., 0].astype(np.float32)).mean(axis=(1, 2)) / 32
        return np.stack([np.zeros_like(darkness), darkness], axis=1)

    def windows(self, *_):
        raise AssertionError("patches are no slide")


def network_of(*patients: str, engine=None, recorded: bool = True) -> TumourNetwork:
    """A network that has seen these patients."""
    sources = (Path("run.json"),) if recorded else ()
    used = UsedPatients(frozenset(map(hashed_patient, patients)), sources)
    return TumourNetwork(Path("w"), engine or RedEngine(), used)


def patches_of(n: int = 120, n_patients: int = 12, side: int = 20, seed: int = 0) -> PatchSet:
    """Noise of two colours: tumour is darker in red by more than its spread."""
    rng = np.random.default_rng(seed)
    tumour = np.arange(n) % 2 == 0
    level = np.where(tumour, 120, 160) + rng.normal(0, 18, n)
    noise = rng.normal(0, 10, (n, side, side, 3)) + level[:, None, None, None]
    pixels = np.clip(noise + np.array([0, -60, 20]), 1, 254).astype(np.uint8)
    return PatchSet("made", 2.0, side, side, tumour, np.array([f"p{i % n_patients}" for i in range(n)]), pixels)


def write_npz(path: Path, n: int = 120, **changes: Any) -> Path:
    cases = patches_of(n)
    arrays: dict[str, Any] = {
        "patch": cases.pictures, "invasive": cases.tumour.astype(np.uint8), "patient": cases.patients, "mpp": 10.0,
    } | changes  # fmt: skip
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def write_jpegs(path: Path, n: int = 12, **changes: Any) -> Path:
    """A set in the layout of PatchCamelyon: green centres are tumour."""
    files = []
    for i in range(n):
        picture = np.full((24, 24, 3), 200, np.uint8)
        picture[8:16, 8:16] = (60, 180, 60) if i % 2 else (200, 60, 60)
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "jpeg", quality=95)
        files.append(file.getvalue())
    arrays: dict[str, Any] = {
        "jpeg": np.frombuffer(b"".join(files), np.uint8),
        "offset": np.cumsum([0, *map(len, files)]),
        "tumour": np.arange(n, dtype=np.uint8) % 2,
        "valid": np.arange(n) >= 4,
    } | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def _huge_jpegs(n: int = 12) -> dict[str, Any]:
    """A small JPEG, again and again, whose header claims 4 225 million px."""
    file = io.BytesIO()
    Image.new("RGB", (24, 24)).save(file, "jpeg")
    size = file.getvalue().index(b"\xff\xc0") + 5
    one = file.getvalue()[:size] + struct.pack(">HH", 65_000, 65_000) + file.getvalue()[size + 4 :]
    return {"jpeg": np.frombuffer(one * n, np.uint8), "offset": np.arange(n + 1) * len(one)}


def test_a_set_of_jpegs_has_labelled_centres(tmp_path):
    """Only valid patches are tested; their pixels are those that were compressed, in order."""
    found, others = open_patch_set(write_jpegs(tmp_path / "set.npz"), mpp=1.0)

    assert others is not None
    assert (len(others), others.tumour.tolist()) == (4, [False, True, False, True])
    assert (len(found), found.side_px, found.labelled_px, found.patients) == (8, 24, 8, None)
    pixels = found.pixels(slice(2, 5))
    assert (pixels[:, 12, 12, 1] > 120).tolist() == found.tumour[2:5].tolist() == [False, True, False]


def test_no_patient_is_tested_and_learned_from(tmp_path):
    """Of the part to learn from, those who are tested are left out; a set that marks none has no such part."""
    patients = np.array([f"p{i}" for i in (0, 1, 2, 3, 3, 3, *range(4, 10))])

    found, others = open_patch_set(write_jpegs(tmp_path / "set.npz", patient=patients), mpp=1.0)

    assert others is not None
    assert others.patients is not None
    assert (len(found), others.patients.tolist()) == (8, ["p0", "p1", "p2"])
    everyone = open_patch_set(write_jpegs(tmp_path / "same.npz", patient=np.array(["p"] * 12)), mpp=1.0)
    assert everyone[1] is None
    assert open_patch_set(write_jpegs(tmp_path / "all.npz", valid=None), mpp=1.0)[1] is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"offset": np.arange(13)}, "does not cut"),
        ({"tumour": np.zeros(12, np.uint8)}, "one class only"),
        ({"tumour": np.arange(9) % 2}, "does not cut"),
        ({"valid": np.zeros(12, bool)}, "no patch to test on"),
        ({"jpeg": np.zeros(12, np.uint8), "offset": np.arange(13)}, "no JPEG that can be decoded"),
        (_huge_jpegs(), r"no JPEG that can be decoded \(it says that it has 65000 x 65000 px\)"),
        ({"patient": np.array([""] * 12)}, "12 patches have no patient"),
        ({"offset": None}, "has no array offset"),
    ],
)
def test_what_is_wrong_with_a_set_of_jpegs_is_said(tmp_path, changes, words):
    """In one line that names the file."""
    with pytest.raises(PatchError, match=rf"set.npz: .*{words}"):
        open_patch_set(write_jpegs(tmp_path / "set.npz", **changes), mpp=1.0)


def test_a_set_that_is_hollow_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    """Gigabytes of nothing fit into a few MB."""
    monkeypatch.setattr(patch_sets, "_LARGE_BYTES", 1 << 16)
    np.savez_compressed(tmp_path / "set.npz", patch=np.zeros((200, 64, 64, 3), np.uint8), invasive=np.arange(200) % 2)

    with pytest.raises(PatchError, match=r"set.npz: says that it holds more than this machine's memory"):
        open_patch_set(tmp_path / "set.npz", mpp=1.0)


@pytest.mark.parametrize("part", [slice(3, 4), slice(3, 12), slice(2, 5), slice(None), slice(-9, None)])
def test_a_patch_of_another_size_is_named(tmp_path, part):
    """Wherever it stands among those that are read together, and if it is read alone."""
    found = replace(open_patch_set(write_jpegs(tmp_path / "a.npz", valid=None), mpp=1.0)[0], name="set")
    wide = io.BytesIO()
    Image.new("RGB", (48, 48)).save(wide, "jpeg")
    odd = replace(found, pictures=(*found.pictures[:3], wide.getvalue(), *found.pictures[4:]))

    with pytest.raises(PatchError, match=r"set: patch 3 is \(48, 48, 3\), others are \(24, 24, 3\)"):
        odd.pixels(part)
    assert odd.pixels(slice(4, 4)).shape == (0, 24, 24, 3)


def test_a_scale_is_asked_for(tmp_path):
    """A set that does not state its µm per px is refused, not guessed."""
    file = write_npz(tmp_path / "set.npz", mpp=None)

    with pytest.raises(PatchError, match="pass --mpp"):
        open_patch_set(file)
    for nonsense in (970, 0, -0.5, math.nan):  # nm, too
        with pytest.raises(PatchError, match="µm per px are no microscope's"):
            open_patch_set(file, nonsense)
    assert open_patch_set(file, 0.5)[0].mpp == 0.5
    assert open_patch_set(write_npz(tmp_path / "set.npz"))[0].mpp == 10.0


@given(side=st.integers(8, 60), mpp=st.sampled_from([0.97, 2.0, 4.0]), share=st.sampled_from([1.0, 1 / 3]))
def test_windows_cover_what_the_label_is_of(side, mpp, share):
    """All of it but for 2 % of a window, with as few windows as can be, centred on the patch."""
    labelled, window = max(1, round(side * share)), 40 / mpp
    if window > 2 * side:
        with pytest.raises(PatchError, match="check --mpp"):
            window_corners(side, labelled, mpp, SPEC)
        return

    corners = window_corners(side, labelled, mpp, SPEC)

    along = np.unique(corners[:, 0])
    assert len(corners) == len(along) ** 2
    gaps = np.diff(along) - window
    assert (gaps <= 0.021 * window).all()
    assert along[0] <= (side - labelled) / 2 + 0.011 * window
    assert along[0] + along[-1] + window == pytest.approx(side)
    assert (len(along) - 1) * window < labelled


def test_the_probability_is_the_mean_over_windows():
    """Of a patch twice as wide as the window, each quarter counts alike."""
    patch = np.zeros((1, 20, 20, 3), np.uint8)
    patch[0, :10, :10, 0] = 255
    corners = window_corners(20, 20, 4.0, SPEC)

    found = probabilities(RedEngine(), patch, corners, 4.0)

    def one(red):
        return 1 / (1 + np.exp(-(128 - red) / 32))

    assert found == pytest.approx([(one(255) + 3 * one(0)) / 4], abs=1e-6)


def test_a_window_wider_than_the_patch_sees_it_mirrored():
    """Nothing is stretched, and no black frame comes in."""
    engine, patch = RedEngine(), np.full((2, 8, 8, 3), 90, np.uint8)
    patch[:, :, :4] = 200

    probabilities(engine, patch, window_corners(8, 8, 4.0, SPEC), 4.0)

    seen = engine.seen[0]
    assert seen.shape == (2, 10, 10, 3)
    assert seen[0, 0, :, 0].tolist() == [200] * 5 + [90] * 5


def test_each_patient_is_judged_by_a_network_that_has_not_seen_him():
    """Whom all have seen is left out; patches of a patient are in one fold."""
    networks = [network_of("a", "b"), network_of("b", "c")]

    found = assign_networks(networks, np.array(["a", "b", "c", "a"]), 4)

    assert found.network.tolist() == [1, NO_NETWORK, 0, 1]
    assert found.fold.tolist() == found.network.tolist()
    assert found.notices == ("1 patients are left out: all networks learned from them",)


def test_a_network_that_saw_its_patients_is_no_test():
    """It is said first; so is a record that is not there, and a set without patients."""
    patients = np.array(["a", "b", "c"] * 2)

    assert "not a test: 2 of 3 patients" in assign_networks([network_of("a", "c")], patients, 6).notices[0]
    assert assign_networks([network_of("x")], patients, 6).notices == ()
    assert "no complete record" in assign_networks([network_of(recorded=False)], patients, 6).notices[0]
    assert "no patients are named" in assign_networks([network_of()], None, 6).notices[0]
    with pytest.raises(EvaluationError, match="give one --weights"):
        assign_networks([network_of(), network_of()], None, 6)


@given(st.lists(st.sampled_from("abcdefghij"), min_size=4, max_size=30))
def test_folds_keep_patients_together(names):
    """However many patches they have; and there are as many folds as patients, up to five."""
    fold = assign_networks([network_of()], np.array(names), len(names)).fold

    assert len({(name, k) for name, k in zip(names, fold.tolist(), strict=True)}) == len(set(names))
    assert len(set(fold.tolist())) == min(5, len(set(names)))


def test_looks_are_counted_pixel_by_pixel():
    """Histogram, density and tissue are those of a slow loop."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 6, 6, 3), dtype=np.uint8)

    found = Looks.of(pixels)

    for k, picture in enumerate(pixels):
        hsv = np.asarray(Image.fromarray(picture).convert("HSV")).reshape(-1, 3)
        counts = np.zeros((3, 16))
        for pixel in hsv:
            for channel, value in enumerate(pixel):
                counts[channel, value // 16] += 1 / 36
        density = -np.log(np.maximum(picture, 1) / 255)
        assert found.histogram[k] == pytest.approx(counts.ravel())
        assert found.density[k] == pytest.approx(density.mean(), abs=1e-5)
        assert found.tissue[k] == pytest.approx((density.mean(axis=2) > 0.15).mean())


def test_rivals_learn_from_other_folds_only():
    """What a fold's truth says changes nothing for that fold, and everything for the others."""
    cases = patches_of()
    looks, fold = Looks.of(cases.pixels(slice(None))), np.arange(120) % 12 % 3
    wrong = np.where(fold == 0, ~cases.tumour, cases.tumour)

    right, told = (learn_rivals(lessons_of_folds(looks, truth, fold)) for truth in (cases.tumour, wrong))

    for name in (HISTOGRAM, DARKNESS):
        one, other = right[name](looks), told[name](looks)
        assert np.array_equal(one.score[fold == 0], other.score[fold == 0])
        assert np.array_equal(one.called[fold == 0], other.called[fold == 0])
        assert balanced_accuracy_score(cases.tumour, one.called) > 0.7
    assert not np.array_equal(right[HISTOGRAM](looks).score, told[HISTOGRAM](looks).score)
    assert roc_auc_score(cases.tumour, right[HISTOGRAM](looks).score) > 0.8


def test_rivals_learn_from_the_part_that_is_there_to_learn_from():
    """Where the set has one: neither its folds nor what they hold is seen; of one class it teaches nothing."""
    cases, apart = patches_of(seed=1), patches_of(seed=2)
    lesson = Lesson(Looks.of(apart.pixels(slice(None))), apart.tumour, np.ones(120, bool))
    expected = learn_rivals([lesson])[HISTOGRAM](Looks.of(cases.pixels(slice(None))))

    found = evaluate_patches(cases, [network_of()], Adaptive(), (), to_learn=apart, threads=2)

    assert np.array_equal(found.scores[HISTOGRAM].score, expected.score)
    assert found.learned_from == "the set's 120 other patches, which are there to learn from"
    one_class = evaluate_patches(
        cases, [network_of()], Adaptive(), (), to_learn=apart.take(np.flatnonzero(apart.tumour))
    )
    assert one_class.learned_from == "the other folds, of other patients"
    unknown = evaluate_patches(replace(cases, patients=None), [network_of()], Adaptive(), ())
    assert unknown.learned_from == "the other folds, which may show the same patients"


def test_one_patient_leaves_the_learned_rivals_out():
    """Nothing can be learned from nobody."""
    cases = patches_of(n_patients=1)

    lessons = lessons_of_folds(Looks.of(cases.pixels(slice(None))), cases.tumour, np.zeros(120, int))

    assert list(learn_rivals(lessons)) == [ALL_TISSUE]


@given(st.integers(0, 1000))
def test_the_best_limit_is_the_best_of_all_values(seed):
    """Of fewer than 200 values every one is tried."""
    rng = np.random.default_rng(seed)
    values, truth = rng.normal(size=40), rng.random(40) < 0.4
    truth[:2] = True, False

    limit = best_limit(values, truth)

    every = [balanced_accuracy_score(truth, values >= one) for one in values]
    assert balanced_accuracy_score(truth, values >= limit) >= max(every) - 0.05
    assert min(values) <= limit <= max(values)


def test_each_network_calls_by_its_own_threshold():
    """The cards of several trainings may state different ones, which is said."""
    cases, sharp = patches_of(48), RedEngine()
    sharp.card = replace(sharp.card, threshold=0.8)
    networks = [network_of(*(f"p{k}" for k in range(6))), network_of(engine=sharp)]

    found = evaluate_patches(cases, networks, Adaptive(), ())

    own = found.scores[NETWORK]
    limits = np.where(found.network == 1, 0.8, PAPER_THRESHOLD)
    assert ((own.score >= 0.8) != (own.score >= PAPER_THRESHOLD))[found.network == 1].any()
    assert (own.called == (own.score >= limits)).all()
    assert found.notices[-1].startswith("the networks call tumour from 0.24 and 0.8 on")


def test_a_network_of_one_colour_is_found_out():
    """It is no better than a colour histogram; darkened pictures, grey ones and turned hues cost what they cost."""
    cases = patches_of(240, 24)
    shifts = [shift for shift in SHIFT_SHEET if shift.name in ("hue +18°", "brightness -15 %", "grey only")]

    found = evaluate_patches(cases, [network_of()], Adaptive(threshold=0.5), shifts)

    own, histogram = found.scorers[0], next(one for one in found.scorers if one.name == HISTOGRAM)
    assert own.name == NETWORK
    assert own.figures["AUC"].value == pytest.approx(roc_auc_score(cases.tumour, found.scores[NETWORK].score))
    called = found.scores[NETWORK].called
    expected = balanced_accuracy_score(cases.tumour, called)
    assert own.figures["balanced accuracy"].value == pytest.approx(expected)
    hits = (called & cases.tumour).sum()
    assert own.figures["Dice"].value == pytest.approx(2 * hits / (called.sum() + cases.tumour.sum()))
    assert own.figures["recall"].value == pytest.approx(hits / cases.tumour.sum())
    assert histogram.below is not None
    assert histogram.below.estimate.low < 0.05
    assert [row.name for row in found.sheet] == [UNCHANGED, "hue +18°", "grey only", "brightness -15 %"]
    assert found.sheet[0].lost is None
    darker = found.sheet[-1]
    assert darker.accuracy.value < own.figures["balanced accuracy"].value  # all is called tumour now
    assert darker.lost is not None


def test_the_settings_say_whether_a_picture_is_seen_from_both_sides():
    """Once and turned by 180°, or once."""
    for half_turn in (True, False):
        engine = RedEngine()
        evaluate_patches(patches_of(), [network_of(engine=engine)], Adaptive(half_turn=half_turn), ())

        assert len(engine.seen) == (2 if half_turn else 1)
        assert np.array_equal(engine.seen[-1], engine.seen[0][:, ::-1, ::-1]) == half_turn


def test_threads_and_order_change_nothing():
    """Parts of the set are scored by whoever is free."""
    cases = patches_of(400, 20)

    one, four = (evaluate_patches(cases, [network_of()], Adaptive(), (), threads=threads) for threads in (1, 4))

    assert np.array_equal(one.scores[NETWORK].score, four.scores[NETWORK].score)


def test_few_patients_are_not_tested():
    """With six of them a p-value would be a guess; the intervals stay."""
    found = evaluate_patches(patches_of(n_patients=6), [network_of()], Adaptive(), ())

    assert not found.is_tested
    assert all(one.below is None or np.isnan(one.below.p_value) for one in found.scorers)
    rivals = found.scorers[1:]
    assert found.unbeaten == tuple(one.name for one in rivals)
    gap = replace(rivals[0].figures["AUC"], value=0.2, low=0.1, high=0.3)
    far_above = replace(rivals[0], below=Difference(gap, math.nan))
    assert Difference(gap, 0.04).is_gain(0.05)
    assert not Difference(gap, 0.06).is_gain(0.05)
    assert not Difference(replace(gap, low=-0.1), 0.04).is_gain(0.05)
    assert replace(found, scorers=(found.scorers[0], far_above)).unbeaten == (rivals[0].name,)


def test_nothing_called_on_a_slide_without_tumour_is_precise():
    """Its Dice is 1, too; where there is tumour, nothing called is a precision of 0."""
    found, nothing, missed = BinaryCounts(9, 1, 90, 0), BinaryCounts(0, 0, 100, 0), BinaryCounts(0, 0, 90, 10)
    patients = np.array(["a", "b"])

    assert _figures([found, nothing], patients)["precision"].value == pytest.approx((0.9 + 1) / 2)
    assert _figures([found, missed], patients)["precision"].value == pytest.approx(0.9 / 2)


@given(st.integers(0, 100))
def test_share_within_a_window_is_that_of_counting(seed):
    """Beyond the mask, as of a slide smaller than a window, is neither tumour nor other tissue."""
    rng = np.random.default_rng(seed)
    mask, side, px_l0 = rng.random((9, 11)) < 0.5, int(rng.integers(1, 14)), 32.0
    origins = np.stack([rng.integers(0, 11, 5), rng.integers(0, 9, 5)], axis=1)

    found = _share_within(mask, TileGrid((origins * px_l0).astype(np.int64), side * px_l0, 64, 2.0), px_l0)

    for (x, y), share in zip(origins, found, strict=True):
        assert share == pytest.approx(mask[y : y + side, x : x + side].mean())


def test_the_command_on_a_patch_set(tmp_path, command_line):
    """A page with rivals and shifts, tables, a picture; the lines say what a reader must know first."""
    file, out = write_npz(tmp_path / "set.npz", 24), tmp_path / "out"

    code, told, _ = command_line("test", "tumour", "--weights", "bundled", "--data", file, "--out", out)

    assert code == 0
    assert f"page {out / 'tumour_test.md'}" in told
    page = (out / "tumour_test.md").read_text("utf-8")
    assert "24 patches of 12 patients, 50 % with invasive tumour" in page
    assert all(shift.name in page for shift in SHIFT_SHEET)
    assert all(name in page for name in (HISTOGRAM, DARKNESS, ALL_TISSUE))
    result = json.loads((out / "tumour_test.json").read_text("utf-8"))
    assert len(result["shift_sheet"]) == len(SHIFT_SHEET) + 1
    with (out / "patches.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 24
    assert (out / "tumour_test.png").stat().st_size > 10_000
    area = roc_auc_score([row["tumour"] == "True" for row in rows], [float(row[NETWORK]) for row in rows])
    assert area == pytest.approx(result["scorers"][0]["figures"]["AUC"]["value"], abs=1e-3)


@pytest.fixture(scope="module")
def annotated(tmp_path_factory):
    """Two slides; the left half of each is tumour. A test looks at fewer windows of them than of real ones."""
    folder = tmp_path_factory.mktemp("annotated")
    rows = ["slide_id,path,patient_id,stain,annotations"]
    mask = np.zeros((64, 64), np.uint8)
    mask[:, :32] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    for k, name in enumerate("ab"):
        write_tissue(folder / f"{name}.tif", tissue_pixels(1280, share=0.6, seed=k))
        rows.append(f"{name},{name}.tif,P-{name},HE,mask.png")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("he2her2.evaluation.tumour.slides._DENSE_POINTS", 400)
        yield folder / "manifest.csv"


@pytest.mark.parametrize("filled", [0, 255])
def test_slides_all_of_one_kind_have_shares_and_no_auc(tmp_path, annotated, command_line, filled):
    """Benign breast, say: what is called there is told, and nothing that needs both kinds."""
    folder, out = tmp_path / "slides", tmp_path / "out"
    shutil.copytree(annotated.parent, folder)
    Image.new("L", (64, 64), filled).save(folder / "mask.png")
    (folder / "one.csv").write_text("".join(annotated.read_text().splitlines(keepends=True)[:2]))

    asked = ("--weights", "bundled", "--data", folder / "one.csv", "--out", out, "--no-shifts", "--no-plots")
    code, printed, error = command_line("test", "tumour", *asked, "--set", "adaptive.iterations=3")

    assert code == 0, error
    assert "share called" in printed
    assert "AUC" not in printed
    result = json.loads((out / "tumour_test.json").read_text("utf-8"))
    ways = {one["name"]: one["figures"] for one in result["slides"]["figures"]}
    assert ("recall" in ways["HASHI"]) == bool(filled)
    assert ways["all tissue"]["share called"]["value"] == 1
    page = (out / "tumour_test.md").read_text("utf-8")
    assert ("Every window" if filled else "No window") + " of these slides is mostly tumour" in page
    assert not (out / "patches.csv").exists()


def test_a_slide_of_two_patients_is_not_tested(tmp_path, annotated, command_line):
    """By the second, a network that learned from the first could judge it."""
    shutil.copytree(annotated.parent, tmp_path / "slides")
    table = tmp_path / "slides" / "manifest.csv"
    table.write_text(annotated.read_text() + "a,a.tif,P-other,HE,mask.png\n")

    code, _, error = command_line(
        "test", "tumour", "--weights", "bundled", "--data", table, "--out", tmp_path / "out", "--no-plots"
    )

    assert code == 2
    assert "lines 2, 4: slide_id 'a' is given 2 times" in " ".join(error.split())


def test_a_slide_whose_tissue_is_all_ignored_is_named(tmp_path, annotated, command_line):
    """It was said to be damaged."""
    shutil.copytree(annotated.parent, tmp_path / "slides")
    table = tmp_path / "slides" / "manifest.csv"
    table.write_text(annotated.read_text().replace("P-b,HE,mask.png", "P-b,HE,b.geojson"))
    features = [
        {"type": "Feature", "properties": {"classification": {"name": name}}, "geometry": mapping(box(0, 0, x, 1280))}
        for name, x in (("Ignore*", 1280), ("Tumor", 12))
    ]
    regions = {"type": "FeatureCollection", "features": features}
    table.with_name("b.geojson").write_text(json.dumps(regions))

    asked = ("--weights", "bundled", "--data", table, "--out", tmp_path / "out", "--no-plots")
    code, _, error = command_line("test", "tumour", *asked, "--set", "adaptive.iterations=3")

    assert code == 2
    assert "b: all of its tissue is left out by its annotations" in " ".join(error.split())


def test_the_command_on_annotated_slides(tmp_path, annotated, command_line):
    """HASHI beside the dense map and all tissue, whose Dice is known; windows are labelled by what they cover."""
    out = tmp_path / "out"
    asked = ("--weights", "bundled", "--data", annotated, "--out", out, "--no-shifts", "--no-plots")

    code, _, error = command_line("test", "tumour", *asked, "--set", "adaptive.iterations=3")

    assert code == 0, error
    result = json.loads((out / "tumour_test.json").read_text("utf-8"))
    ways = {one["name"]: one["figures"] for one in result["slides"]["figures"]}
    assert list(ways) == ["HASHI", "dense map", "all tissue", "tissue darkness"]
    assert ways["all tissue"]["Dice"]["value"] == pytest.approx(2 / 3, abs=0.03)
    assert ways["all tissue"]["recall"]["value"] == ways["all tissue"]["share called"]["value"] == 1
    assert result["n_patients"] == 2
    with (out / "slides.csv").open(encoding="utf-8") as stream:
        slides = list(csv.DictReader(stream))
    assert [slide["slide_id"] for slide in slides] == ["a", "b"]
    assert float(slides[0]["tumour_share"]) == pytest.approx(0.5, abs=0.03)
    called = [float(slide["hashi_share_called"]) for slide in slides]
    assert np.mean(called) == pytest.approx(ways["HASHI"]["share called"]["value"])
    page = (out / "tumour_test.md").read_text("utf-8")
    assert "Of 2 patients no difference is tested" in page
    assert "png" not in page


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--data", "gone.npz"), "gone.npz: cannot be read"),
        (("--data", "gone.csv"), "gone.csv"),
        (("--data", "x.h5", "--mpp", "0.97"), "is no NPZ of plain arrays; write with numpy.savez patch, invasive"),
        (("--data", "folder"), "give an NPZ of patches"),
        (("--data", "set.npz", "--mpp", "0.5"), "the network sees 128 µm; check --mpp"),
        (("--data", "set.npz", "--weights", "untrained:0"), "trained ones are needed here"),
        (("--data", "set.npz", "--weights", "nowhere"), "there is no such folder"),
        (("--data", "set.npz", "--out", "."), "choose another --out"),
    ],
)
def test_what_cannot_be_tested_is_one_line(tmp_path, monkeypatch, command_line, arguments, words):
    """And nothing is written."""
    monkeypatch.chdir(tmp_path)
    write_npz(tmp_path / "set.npz")
    (tmp_path / "x.h5").write_bytes(b"\x89HDF\r\n\x1a\n")  # as PatchCamelyon comes
    (tmp_path / "folder").mkdir()
    given_ = dict(zip(arguments[::2], arguments[1::2], strict=True))
    asked = {"--weights": "bundled", "--out": "out"} | given_

    code, _, error = command_line("test", "tumour", *(text for pair in asked.items() for text in pair))

    assert code == 2
    assert words in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_fold_networks_of_a_training_are_found(tmp_path):
    """In the order of the folds; where there are none, the training's own weights."""
    with pytest.raises(Exception, match="no such folder"):
        open_networks([str(tmp_path)], Runtime())
    bundled = open_networks(["bundled"], Runtime())
    assert len(bundled) == 1
    for k in (2, 10, 1):
        place = tmp_path / "folds" / str(k) / "weights"
        place.mkdir(parents=True)
        (place / "tumour_cnn").symlink_to(bundled[0].folder / "tumour_cnn", target_is_directory=True)

    found = open_networks([str(tmp_path)], Runtime())

    assert [network.folder.parent.name for network in found] == ["1", "2", "10"]
