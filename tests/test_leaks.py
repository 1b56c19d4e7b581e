"""The guard against leaks: every kind, planted in a phantom cohort, is caught, and an honest cohort passes."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from skimage.color import hed2rgb, rgb2hed

from he2her2.cohort import (
    ALIKE,
    THUMBNAIL_PX,
    alike_pairs,
    find_leaks,
    likeness,
    print_of,
    refuse_chosen_with,
    refuse_leaks,
)
from he2her2.cohort.likeness import Landmarks, TissuePrint
from he2her2.errors import ManifestError
from he2her2.geometry import Point
from he2her2.manifest import (
    Manifest,
    SlideRow,
    block_groups,
    near_groups,
    near_patients,
    patients_record,
    read_manifest,
    write_manifest,
)
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


@pytest.mark.parametrize(
    ("name", "other"),
    [("H12345-21", "H12345-21-B1"), ("B22/77 I", "B22/77 III"), ("S21-1234 HE", "s21-1234 A2-1"), ("1001", "1001-2")],
)
def test_blocks_of_one_patient_on_two_sides_are_told(phantoms, name, other):
    """An accession number with a block or a slide behind it; nothing is told of blocks on one side."""
    rows = with_patients(phantoms, {"train": name, "test": other})
    same_side = with_patients(phantoms, {"train": name})

    (warning,) = refuse_leaks([replace(phantoms, rows=rows)], by_tissue=False)

    assert warning.startswith("one patient under the names of two blocks or slides? ")
    assert not refuse_leaks([replace(phantoms, rows=same_side)], by_tissue=False)
    assert any("may be blocks or slides of one patient" in line for line in near_patients(rows))


def with_patients(manifest, names):
    """Rows of a manifest, where all of a split get one patient's name."""
    return tuple(replace(row, patient_id=names.get(row.split, row.patient_id)) for row in manifest.rows)


PATIENT_NAMES = {
    "numbers": str,
    "behind a dash": lambda k: f"P-{k}",
    "of sites": lambda k: f"S{k // 30}-{k % 30}",
    "of sites with letters": lambda k: f"S{k // 26}-{chr(65 + k % 26)}",
    "of large sites": lambda k: f"{k // 90:03d}-{k % 90}",
    "of a study": lambda k: f"2021-{chr(65 + k % 26)}{k // 26}",
    "accessions": lambda k: f"H{1000 + k // 3}-{20 + k % 3}",
    "TCGA": lambda k: f"TCGA-A{k % 7}-A0{chr(65 + k // 36)}{'ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789'[k % 36]}",
    "cases": lambda k: f"Her2Pos_Case_{k:02d}",
}


@pytest.mark.parametrize("name", PATIENT_NAMES.values(), ids=PATIENT_NAMES)
def test_names_of_cohorts_are_no_blocks(name):
    """Each is a patient; S1-11 and S11-1 are not one written in two ways."""
    names = [name(k) for k in range(900)]

    assert not block_groups(names)
    assert not near_groups(names)


def test_a_file_on_two_sides_is_caught(phantoms, tmp_path):
    """By its path, by a link, and as a copy under another name and patient."""
    train = one_of(phantoms, "train")
    copy, link = tmp_path / "other.tif", tmp_path / "link.tif"
    shutil.copy(train.path, copy)
    link.symlink_to(train.path)

    for path in (train.path, copy, link):
        leaky = with_row(phantoms, train.slide_id, slide_id="x", path=path, patient_id="somebody else", split="test")
        assert kinds(leaky)[0] == "file"


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
    assert "leak: the same tissue (" in err
    assert f"{tmp_path / 'b.csv'} line 2 (test): copy of q" in err
    assert err.count("\n") == 2  # the slide, and its twin in the other stain


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

    told = refuse_leaks([doubled], workers=1)

    assert len(told) == 2  # the slide, and its twin in the other stain
    assert all(line.startswith("one slide, two patients? the same tissue") for line in told)


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
    assert out.startswith("no leak found between the sides of 6 slides in 1 manifest\n")
    assert "not looked for: serial sections, other cuts or stains of the same block" in out
    assert (refused, "trained or chose" in told) == (2, True)


def blots(seed: int, side: int = 256) -> np.ndarray:
    """A picture of tissue: stained blots in a disc on glass."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=(side, side)), side / 40)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    dark = np.where(x**2 + y**2 < 0.4, 60 + 60 * np.clip(field / field.std(), -0.9, 2), 0)
    grey: np.ndarray = np.clip(GLASS - dark, 0, 255).astype(np.uint8)
    return np.stack([grey, grey // 2 + GLASS // 2, grey // 4 * 3 + GLASS // 4], axis=2)


def restained(rgb: np.ndarray, strength: tuple[float, float]) -> np.ndarray:
    """Haematoxylin and eosin stronger or weaker."""
    return np.asarray((hed2rgb(rgb2hed(rgb) * np.array([*strength, 1.0])) * 255).astype(np.uint8))


def inked(rgb: np.ndarray) -> np.ndarray:
    """Two bars of pen across the tissue."""
    out = rgb.copy()
    side = len(rgb)
    out[side // 3 : side // 3 + side // 20] = (20, 40, 140)
    out[:, side // 2 : side // 2 + side // 20] = (25, 25, 25)
    return out


COPIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "turned a little": lambda rgb: ndimage.rotate(rgb, 5, order=1, cval=GLASS),
    "turned": lambda rgb: ndimage.rotate(rgb, 133, order=1, cval=GLASS),
    "mirrored and turned": lambda rgb: ndimage.rotate(rgb[:, ::-1], 201, order=1, cval=GLASS),
    "cropped": lambda rgb: rgb[: 3 * len(rgb) // 4, len(rgb) // 4 :],
    "stained weakly": lambda rgb: restained(rgb, (0.5, 1.6)),
    "stained strongly": lambda rgb: restained(rgb, (1.9, 0.5)),
    "inked": inked,
    "with a second piece": lambda rgb: np.concatenate([rgb, blots(77, len(rgb))], axis=1),
    "all of it": lambda rgb: inked(restained(ndimage.rotate(rgb, 71, order=1, cval=GLASS)[40:-90, 60:-80], (0.6, 1.4))),
}


@pytest.mark.parametrize("alteration", COPIES)
def test_altered_copies_are_alike(thumbnails, alteration):
    """By far more landmarks than are needed, and by those of the right pair only."""
    copy = print_of(np.ascontiguousarray(COPIES[alteration](thumbnails[0])))
    prints = [copy, *map(print_of, thumbnails)]

    found = [pair for pair in alike_pairs(prints) if 0 in pair[:2]]

    assert [pair[:2] for pair in found] == [(0, 1)]
    assert found[0][2] >= 2 * ALIKE


@pytest.fixture(scope="module")
def thumbnails(phantoms):
    """Of two phantom patients."""
    found = []
    for row in phantoms.select(stain="HE")[:2]:
        with open_slide(row.path) as slide:
            found.append(slide.thumbnail(max(slide.size_l0) * slide.mpp / THUMBNAIL_PX))
    return found


def test_real_tissue_is_alike_to_its_copies_only(data_dir):
    """The regions of two patients, turned, cut, and restained."""
    pictures = [Image.open(data_dir / "bcss" / f"{name}.jpg").reduce(4) for name in ("1008", "1015")]
    first, second = (np.asarray(picture.convert("RGB")) for picture in pictures)
    altered = restained(ndimage.rotate(first, 33, order=1, cval=GLASS)[80:-120, 60:-60], (0.6, 1.5))

    found = list(alike_pairs([print_of(one) for one in (first, second, altered)]))

    assert [pair[:2] for pair in found] == [(0, 2)]


def test_different_tissue_is_not_alike():
    """No false alarm among 18 pictures of the same outline: 0 of 153 pairs, whatever the quick comparison lets pass."""
    prints = [print_of(blots(seed)) for seed in range(18)]

    assert list(alike_pairs(prints)) == []
    assert max(likeness(prints[i], prints[j]) for i in range(6) for j in range(i)) < ALIKE


def test_pairs_are_found_wherever_they_stand(monkeypatch):
    """In blocks of any length, each pair once, the smaller index first."""
    prints = [print_of(blots(seed)) for seed in (1, 2, 3, 1, 4, 2)]

    for block in (1, 2, 3, 100):
        monkeypatch.setattr(sys.modules["he2her2.cohort.likeness"], "_BLOCK", block)
        assert sorted(pair[:2] for pair in alike_pairs(prints)) == [(0, 3), (1, 5)]
    assert list(alike_pairs([])) == list(alike_pairs(prints[:1])) == []


@given(seed=st.integers(0, 10**6), angle=st.floats(0, 2 * np.pi), scale=st.floats(0.5, 2))
def test_landmarks_that_agree_are_counted(seed, angle, scale):
    """All of a moved constellation, none of a shuffled one; a chance match beside them changes nothing."""
    rng = np.random.default_rng(seed)
    place = rng.uniform(0, 500, 40) + 1j * rng.uniform(0, 500, 40)
    kind = rng.normal(size=(40, 128))
    kind = (kind / np.linalg.norm(kind, axis=1, keepdims=True)).astype(np.float16)
    one = Landmarks(place, rng.uniform(2, 20, 40), rng.uniform(0, 6, 40), kind)
    moved = replace(one, place=place * scale * np.exp(1j * angle) + 7, size=one.size * scale, angle=one.angle + angle)
    shuffled = replace(moved, place=rng.permutation(moved.place))

    assert likeness(TissuePrint(one, shuffled), TissuePrint(moved, moved)) == 40
    assert likeness(TissuePrint(one, one), TissuePrint(shuffled, shuffled)) < ALIKE


@pytest.mark.parametrize("shape", [(64, 80, 3), (1, 1, 3), (900, 2, 3)])
def test_blank_glass_cannot_be_compared(shape):
    """A slide without tissue has no landmark, of whatever shape."""
    assert not print_of(np.full(shape, GLASS, np.uint8)).comparable


def test_a_slide_with_too_little_tissue_is_told(phantoms, tmp_path):
    """It is no duplicate of another such, and it is not passed over."""
    blank = write_slide(tmp_path / "blank.svs", pyramid(np.full((512, 512, 3), GLASS, np.uint8), (1, 4)))
    manifest = with_row(phantoms, phantoms.rows[0].slide_id, slide_id="x", path=blank, patient_id="q")

    (told,) = refuse_leaks([manifest], workers=1)

    assert told == "not compared for its tissue: x: it shows too little tissue to tell it from another's"
