"""The guard against leaks: every kind, planted in a phantom cohort, is caught, and an honest cohort passes."""

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from he2her2.cohort import ALIKE, find_leaks, likeness, print_of, refuse_chosen_with, refuse_leaks
from he2her2.errors import ManifestError
from he2her2.geometry import Point
from he2her2.manifest import Manifest, SlideRow, patients_record, read_manifest, write_manifest
from he2her2.phantom import CohortSpec, write_cohort
from he2her2.slides import open_slide
from tests.slide_files import SlideSpec, pyramid, write_slide

GLASS = 243


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    """Three phantom patients, one a split, each with an H&E slide and its IHC twin."""
    folder = tmp_path_factory.mktemp("phantoms")
    cohort = CohortSpec(n=3, seed=8, stains=("HE", "IHC"), splits=(0.34, 0.33, 0.33), slide={"size_px": [1024, 1024]})
    return read_manifest(write_cohort(folder, cohort, truth=False))


def with_row(manifest, like, **changes):
    """The manifest and one more row, made from that of `like`."""
    row = replace(next(row for row in manifest.rows if row.slide_id == like), line=99, **changes)
    return replace(manifest, rows=(*manifest.rows, row))


def one_of(manifest, split, stain="HE"):
    """The H&E slide of a split."""
    return manifest.select(stain=stain, split=split)[0]


def kinds(*manifests):
    """What leaks between the sides."""
    return sorted({leak.kind for leak in find_leaks(manifests, workers=1).leaks if leak.crosses})


def altered_copy(row: SlideRow, out: Path, alter: Callable[[np.ndarray], np.ndarray], quality: int = 90) -> Path:
    """Another slide file that shows the slide of a row, altered."""
    with open_slide(row.path) as slide:
        pixels = slide.read(Point(0, 0), slide.size_l0, slide.mpp)
    return write_slide(out, pyramid(np.ascontiguousarray(alter(pixels)), (1, 4, 16)), SlideSpec(quality=quality))


ALTERATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "compressed again": lambda rgb: rgb,
    "half as large": lambda rgb: np.asarray(Image.fromarray(rgb).resize((512, 512), Image.Resampling.BOX)),
    "shifted": lambda rgb: ndimage.shift(rgb, (40, -30, 0), order=0, mode="constant", cval=GLASS),
    "turned by a quarter": np.rot90,
    "mirrored and turned by three quarters": lambda rgb: np.rot90(rgb[:, ::-1], 3),
    "stained otherwise": lambda rgb: (255 * (rgb / 255) ** np.array([1.3, 1.1, 0.8])).astype(np.uint8),
}


def test_an_honest_cohort_passes(phantoms):
    """H&E and IHC twins of one patient in one split are no leak; nothing is left to tell."""
    assert refuse_leaks([phantoms], workers=1) == ()


def test_a_patient_on_two_sides_is_caught(phantoms):
    """Told once for each pair of sides, with manifest, line, slide and patient."""
    train = one_of(phantoms, "train")
    leaky = with_row(phantoms, train.slide_id, slide_id="again", split="test")

    with pytest.raises(ManifestError) as caught:
        refuse_leaks([leaky], workers=1)

    patient = [problem for problem in caught.value.problems if "the same patient" in problem]
    assert len(patient) == 1
    assert f"line {train.line} (train): {train.slide_id} of {train.patient_id}" in patient[0]
    assert "line 99 (test): again" in patient[0]


@pytest.mark.parametrize("name", ["TCGA-A1-A0SK-01Z-00-DX1", "tcga.a1.a0sk"])
def test_a_patient_under_another_barcode_is_caught(phantoms, name):
    """Slide, sample and patient barcodes are one patient's."""
    rows = [
        replace(row, patient_id="TCGA-A1-A0SK" if row.split == "train" else row.patient_id) for row in phantoms.rows
    ]
    rows = [replace(row, patient_id=name if row.split == "val" else row.patient_id) for row in rows]

    assert "patient" in kinds(replace(phantoms, rows=tuple(rows)))


@pytest.mark.parametrize("name", ["Pat-7", "PAT 007", "pat_7", "pat07"])
def test_patients_on_two_sides_who_are_named_almost_alike_are_listed(phantoms, name):
    """Nobody can know if they are one, so it is a warning; on one side there is nothing to warn of."""
    rows = [replace(row, patient_id="pat7" if row.split == "train" else row.patient_id) for row in phantoms.rows]
    rows = [replace(row, patient_id=name if row.split == "test" else row.patient_id) for row in rows]

    (warning,) = refuse_leaks([replace(phantoms, rows=tuple(rows))], workers=1)

    assert warning.startswith("one patient under two names? ")
    assert f"(test): phantom-8-0000-HE of {name}, and " in warning
    assert warning.endswith("(train): phantom-8-0001-HE of pat7")
    together = tuple(replace(row, split="train") for row in rows)
    assert refuse_leaks([replace(phantoms, rows=together)], workers=1) == ()


def test_a_file_on_two_sides_is_caught(phantoms, tmp_path):
    """By its path, by a link, and as a copy under another name and patient."""
    train = one_of(phantoms, "train")
    copy, link = tmp_path / "other.tif", tmp_path / "link.tif"
    shutil.copy(train.path, copy)
    link.symlink_to(train.path)

    for path in (train.path, copy, link):
        leaky = with_row(phantoms, train.slide_id, slide_id="x", path=path, patient_id="somebody else", split="test")
        assert kinds(leaky) == ["file"]


@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_the_same_tissue_on_two_sides_is_caught(phantoms, tmp_path, alteration):
    """Another file, under another patient's name, of the same tissue."""
    train = one_of(phantoms, "train")
    copy = altered_copy(train, tmp_path / "copy.svs", ALTERATIONS[alteration], quality=60)
    leaky = with_row(phantoms, train.slide_id, slide_id="x", path=copy, patient_id="somebody else", split="test")

    assert kinds(leaky) == ["tissue"]


def test_a_tissue_leak_names_both_slides_on_the_command_line(phantoms, tmp_path, command_line):
    """Exit code 2, and a line that says what is the same."""
    train = one_of(phantoms, "train")
    copy = altered_copy(train, tmp_path / "copy.svs", np.rot90)
    row = replace(train, slide_id="copy", path=copy, patient_id="q", split="test")
    write_manifest(phantoms, tmp_path / "a.csv")
    write_manifest(Manifest(tmp_path / "b.csv", (row,)))

    code, _, err = command_line("manifest", "leaks", tmp_path / "a.csv", tmp_path / "b.csv")

    assert code == 2
    assert "leak: the same tissue:" in err
    assert f"{tmp_path / 'b.csv'} line 2 (test): copy of q" in err
    assert err.count("\n") == 1


def test_an_evaluation_on_tissue_of_the_training_is_refused(phantoms, tmp_path, command_line):
    """The same tissue under another patient's name, in train and test of the manifest: no figure of it."""
    train = one_of(phantoms, "train")
    copy = altered_copy(train, tmp_path / "copy.svs", np.rot90)
    leaky = with_row(phantoms, train.slide_id, slide_id="x", path=copy, patient_id="somebody else", split="test")
    manifest = write_manifest(leaky, tmp_path / "manifest.csv")

    code, _, error = command_line("evaluate", tmp_path, "-m", manifest, "-o", tmp_path / "out")

    assert code == 2
    assert "leak: the same tissue" in error


def test_manifests_without_splits_are_sides_of_their_own(phantoms, tmp_path):
    """A cohort for testing shares a patient with the one for training, although neither says "test"."""
    train = phantoms.select(split="train")
    whole = replace(phantoms, path=tmp_path / "one" / "manifest.csv", rows=tuple(replace(r, split=None) for r in train))
    again = replace(whole, path=tmp_path / "two" / "manifest.csv")

    assert kinds(whole) == []
    assert "patient" in kinds(whole, again)
    assert "patient" in kinds(phantoms, again)


def test_the_same_side_of_two_manifests_is_one_side(phantoms, tmp_path):
    """IHC slides pre-train and H&E slides of the same patients train: no leak; rows without a split are not used."""
    stains = {stain: phantoms.select(stain=stain) for stain in ("HE", "IHC")}
    first, second = (
        replace(phantoms, path=tmp_path / f"{stain}.csv", rows=tuple(rows)) for stain, rows in stains.items()
    )
    unused = with_row(second, second.rows[0].slide_id, slide_id="unused", split=None)

    assert refuse_leaks([first, second, unused], workers=1) == ()


def test_one_slide_of_two_patients_on_one_side_is_told(phantoms, tmp_path):
    """It crosses no side, so nothing is refused; but it counts a patient twice."""
    train = one_of(phantoms, "train")
    copy = altered_copy(train, tmp_path / "copy.svs", np.fliplr)
    doubled = with_row(phantoms, train.slide_id, slide_id="x", path=copy, patient_id="somebody else")

    (told,) = refuse_leaks([doubled], workers=1)

    assert told.startswith("one slide, two patients? the same tissue")


def test_a_slide_that_cannot_be_read_is_told(phantoms, tmp_path):
    """Its tissue is compared with nothing, and that is not passed over."""
    broken = tmp_path / "broken.svs"
    broken.write_text("no slide")
    manifest = with_row(phantoms, phantoms.rows[0].slide_id, slide_id="x", path=broken, patient_id="q")

    (told,) = refuse_leaks([manifest], workers=1)

    assert told.startswith("not compared for its tissue: x:")


def test_a_slide_without_mpp_is_compared_all_the_same(phantoms, tmp_path):
    """The scale of a thumbnail does not matter."""
    train = one_of(phantoms, "train")
    with open_slide(train.path) as slide:
        pixels = slide.read(Point(0, 0), slide.size_l0, slide.mpp)
    copy = write_slide(tmp_path / "copy.svs", pyramid(pixels, (1, 4)), SlideSpec(mpp=None))
    leaky = with_row(phantoms, train.slide_id, slide_id="x", path=copy, patient_id="q", split="val", mpp=None)

    assert kinds(leaky) == ["tissue"]


def test_testing_those_who_chose_the_weights_is_refused(phantoms, tmp_path):
    """Training and validation patients of a run are told by name; its test patients pass."""
    (tmp_path / "run.json").write_text(json.dumps(patients_record(phantoms)))

    with pytest.raises(ManifestError) as caught:
        refuse_chosen_with(phantoms.rows, tmp_path)

    assert len(caught.value.problems) == 2
    assert all("trained or chose" in problem for problem in caught.value.problems)
    assert refuse_chosen_with(phantoms.select(split="test"), tmp_path) == ()


def test_a_run_that_does_not_say_who_chose_is_told(phantoms, tmp_path):
    """Silence is no proof."""
    (told,) = refuse_chosen_with(phantoms.rows, tmp_path)

    assert "cannot be ruled out" in told


def test_the_command_line_checks_a_run_and_tells_that_all_is_well(phantoms, tmp_path, command_line):
    """`--run` compares the tested patients with those who chose."""
    (tmp_path / "run.json").write_text(json.dumps(patients_record(phantoms)))
    swapped = {"train": "test", "val": "val", "test": "train"}
    rows = tuple(replace(row, split=swapped[row.split]) for row in phantoms.rows)
    write_manifest(replace(phantoms, rows=rows), tmp_path / "swapped.csv")

    code, out, err = command_line("manifest", "leaks", phantoms.path, "--run", tmp_path)
    refused, _, told = command_line("manifest", "leaks", tmp_path / "swapped.csv", "--run", tmp_path)

    assert (code, err) == (0, "")
    assert out == "no leak between the sides of 6 slides in 1 manifest\n"
    assert (refused, "trained or chose" in told) == (2, True)


def blots(seed: int, side: int = 256) -> np.ndarray:
    """A picture of tissue: dark blots in a disc on glass."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=(side, side)), side / 40)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    dark = np.where(x**2 + y**2 < 0.4, 60 + 60 * np.clip(field / field.std(), -0.9, 2), 0)
    grey: np.ndarray = np.clip(GLASS - dark, 0, 255).astype(np.uint8)
    return np.stack([grey] * 3, axis=2)


@given(seed=st.integers(0, 10**6), quarters=st.integers(0, 3), mirrored=st.booleans())
def test_turned_and_mirrored_pictures_have_the_same_likeness(seed, quarters, mirrored):
    """All eight symmetries give 1, up to rounding."""
    picture = blots(seed)
    turned = np.rot90(picture[:, ::-1] if mirrored else picture, quarters)

    assert likeness(print_of(picture)[None], print_of(turned)[None])[0, 0] > 0.999


@given(seed=st.integers(0, 10**6), x=st.integers(-25, 25), y=st.integers(-25, 25), quality=st.integers(20, 95))
def test_shifted_and_compressed_pictures_stay_alike(seed, x, y, quality):
    """A tenth of the picture to any side, and JPEG of poor quality."""
    moved = ndimage.shift(blots(seed), (y, x, 0), order=0, mode="constant", cval=GLASS)
    file = io.BytesIO()
    Image.fromarray(moved).save(file, "JPEG", quality=quality)

    assert likeness(print_of(blots(seed))[None], print_of(np.asarray(Image.open(file)))[None])[0, 0] > ALIKE


def test_different_tissue_is_not_alike():
    """No false alarm among 100 pictures of the same outline: 0 of 4 950 pairs."""
    prints = np.stack([print_of(blots(seed)) for seed in range(100)])

    found = likeness(prints, prints)[np.triu_indices(100, 1)]

    assert found.max() < ALIKE


def test_likeness_is_the_best_correlation_of_the_slow_way():
    """Against turning every pair and correlating it."""
    prints = np.stack([print_of(blots(seed)) for seed in range(3)])

    def slow(a, b):
        images = [np.rot90(m, k) for m in (b.reshape(32, 32), b.reshape(32, 32)[:, ::-1]) for k in range(4)]
        return max(float(np.corrcoef(a, image.ravel())[0, 1]) for image in images)

    expected = [[slow(a, b) for b in prints] for a in prints]

    np.testing.assert_allclose(likeness(prints, prints), expected, atol=1e-5)


def test_blank_glass_is_like_nothing():
    """A slide without tissue has no print, and is no duplicate of another such."""
    blank = print_of(np.full((64, 80, 3), GLASS, np.uint8))

    assert not blank.any()
    assert likeness(blank[None], blank[None])[0, 0] <= 0
