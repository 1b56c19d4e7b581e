"""IHC slides by colour: what is measured of brown, the score in ASCO/CAP's words, and `he2her2 score-ihc`."""

import csv
import shutil

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage import data
from skimage.color import rgb2hed

from he2her2.config import Tissue
from he2her2.labels import IhcScore
from he2her2.phantom import make_spec, write_phantom
from he2her2.preprocessing import Staining, staining, unlike_dab, usual_light, weak_tissue_mask
from he2her2.preprocessing.stain import RUIFROK, from_density
from tests.slide_files import corrupt_tile

BLUE = 0.3 * RUIFROK[0]
FIELDS = ("density", "faint", "moderate", "intense", "membrane")


def tile_of(dab: np.ndarray) -> np.ndarray:
    """(1, h, h, 3) counterstained tile with an amount of DAB at each px."""
    return from_density(BLUE + dab[..., None] * RUIFROK[2])[None]


@given(st.floats(0, 1.2), st.floats(0.1, 0.9))
def test_shares_are_those_that_were_drawn(amount, share):
    """Of a tile whose left part is stained, at the scale of the measure; counterstain is no DAB."""
    dab = np.zeros((40, 40))
    dab[:, : round(40 * share)] = amount

    found = dict(zip(FIELDS, staining(tile_of(dab), 1.0)[0], strict=True))

    stained = round(40 * share) / 40
    assert found["density"] == pytest.approx(stained * amount, abs=0.02)
    for name, limit in (("faint", 0.1), ("moderate", 0.2), ("intense", 0.5)):
        if abs(amount - limit) > 0.02:
            assert found[name] == pytest.approx(stained if amount > limit else 0)


def test_density_is_scikit_images_dab():
    """But for its unit, the logarithm of a millionth, where nothing is cut off."""
    tile = tile_of(np.random.default_rng(0).uniform(0.05, 1, (30, 30)))

    found = staining(tile, 1.0)[0, 0]

    assert found == pytest.approx((rgb2hed(tile)[..., 2] * -np.log(1e-6)).mean(), abs=0.01)


def test_fine_tiles_are_averaged_first():
    """Noise of single px at 0.25 µm does not count as intense staining."""
    dab = np.zeros((64, 64))
    dab[::4, ::4] = 1.0

    fine, coarse = (dict(zip(FIELDS, staining(tile_of(dab), mpp)[0], strict=True)) for mpp in (0.25, 1.0))

    assert fine["intense"] == 0
    assert coarse["intense"] == pytest.approx(1 / 16)


@pytest.mark.parametrize("light", [(1, 0.95, 0.85), (0.85, 0.9, 1), (0.8, 0.8, 0.8)], ids=["yellow", "blue", "dim"])
def test_a_slides_light_is_no_stain(light):
    """Dim or tinted glass counts as the glass on which the amounts were chosen, and so does what lies on it."""
    picture = np.full((60, 60, 3), (238, 236, 242), np.uint8)
    picture[20:, 20:] = tile_of(np.random.default_rng(0).uniform(0, 0.15, (40, 40)))[0]
    tissue = picture.max(axis=2) < 230

    lit = np.rint(picture * light).astype(np.uint8)
    seen = usual_light(lit, tissue)(lit)

    np.testing.assert_array_equal(usual_light(picture, tissue)(picture), picture)
    np.testing.assert_allclose(seen.astype(int), picture, atol=9)  # of the 255 of white; `lit` is off by up to 50


def test_lines_are_membranes_and_fields_are_not():
    """Thin lines of DAB are membrane; as dark a field of it is not, in the next tile."""
    lines, field = np.zeros((48, 48)), np.zeros((48, 48))
    lines[8:40:8, 8:40] = field[10:30, 10:30] = 0.6

    found = staining(np.concatenate([tile_of(lines), tile_of(field)]), 1.0)
    thin, broad = (dict(zip(FIELDS, tile, strict=True)) for tile in found)

    assert thin["membrane"] == thin["faint"] > 0
    assert broad["faint"] > thin["faint"]
    assert broad["membrane"] == 0


@pytest.mark.parametrize(
    ("moderate", "intense", "score"),
    [(0.5, 0.11, "3+"), (0.5, 0.09, "2+"), (0.11, 0, "2+"), (0.09, 0.02, "1+"), (0.02, 0, "1+"), (0.009, 0, "0")],
)
def test_the_score_follows_the_guidelines_words(moderate, intense, score):
    """More than 10 % intense is 3+, more than 10 % moderate 2+, some 1+, none 0."""
    assert Staining(0.1, 1.0, moderate, intense, 0.1).ihc_score == IhcScore(score)


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """IHC phantoms of 0 and 3+, half of that of 0 in yellow light, and a manifest that has an H&E row too."""
    folder = tmp_path_factory.mktemp("ihc")
    rows = ["slide_id,path,patient_id,stain,annotations"]
    for score in ("0", "3+"):
        spec = make_spec(seed=3, ihc_score=score, stain="IHC", size_px=(1536, 1536), tissue_extent=0.7, pen=0, blur=0)
        write_phantom(folder / f"ihc{score[0]}.tif", spec)
        rows.append(f"ihc{score[0]},ihc{score[0]}.tif,P{score[0]},IHC,")
    yellow = np.rint(tifffile.imread(folder / "ihc0.tif", key=0) * (1, 0.95, 0.85)).astype(np.uint8)
    scale = (40_000, 40_000)  # px a cm
    file = folder / "yellow.tif"
    tifffile.imwrite(file, yellow, photometric="rgb", tile=(256, 256), resolution=scale, resolutionunit="CENTIMETER")
    half = np.repeat([[0, 0, 255, 255]], 4, axis=0).astype(np.uint8)
    Image.fromarray(half).save(folder / "half.png")
    rows.append("yellow,yellow.tif,P0,IHC,half.png")
    rows.append("he,gone.tif,P9,HE,")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder / "manifest.csv"


def test_the_command_tells_much_brown_from_none(tmp_path, slides, command_line):
    """By colour and by the network; the lines say what it is good for, and the table has every measure."""
    out = tmp_path / "ihc.csv"

    code, told, notes = command_line("score-ihc", slides, "--out", out)

    assert code == 0, notes
    assert "rows of another stain than IHC are left out" in notes
    assert "no breast tissue stands behind it" in told
    assert "CAUTION of ihc0, ihc3 all tissue counts: stroma" in told
    with out.open(encoding="utf-8") as file:
        none, much, yellow = list(csv.DictReader(file))
    assert none["ihc_score"] == yellow["ihc_score"] == "0"
    assert (none["measured"], yellow["measured"]) == ("all tissue", "annotated tumour")
    assert 0 < float(yellow["tissue_mm2"]) < 0.7 * float(none["tissue_mm2"])
    assert 0 < int(yellow["tiles"]) < 0.7 * int(none["tiles"])
    assert much["ihc_score"] in ("2+", "3+")  # without annotations the stroma counts, too
    assert float(much["network_score"]) > float(none["network_score"]) + 1
    assert float(much["membrane_share"]) > 2 * float(none["membrane_share"])
    assert f"ihc3: IHC {much['ihc_score']} by colour (stained {float(much['faint_share']):.0%}" in told


def test_a_network_of_lightness_serves_too(slides, command_line):
    """The paper's input stays; and what fails is said, one line a slide, with an exit code, such as lost tiles."""
    slide = slides.parent / "ihc3.tif"
    damaged = shutil.copy(slide, slides.parent / "damaged.tif")
    for index in range(14, 18):
        corrupt_tile(damaged, index)

    code, told, _ = command_line("score-ihc", slide, "--weights", "bundled-ihc")
    failed, _, error = command_line("score-ihc", damaged)

    assert code == 0
    assert "+ by colour (stained" in told
    assert failed == 2
    assert "tiles cannot be decoded" in error
    assert error.count("\n") == 1


CHANGES = {
    "grey": lambda rgb: np.repeat(rgb.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2),
    "inverted": lambda rgb: 255 - rgb,
    "exchanged": lambda rgb: rgb[..., ::-1],
}


def tissue_pixels(rgb, step=1):
    """(n, 3) tissue of a picture, averaged over squares of `step` px."""
    h, w = (side // step for side in rgb.shape[:2])
    blocks = rgb[: h * step, : w * step].reshape(h, step, w, step, 3).mean(axis=(1, 3))
    small = np.rint(blocks).astype(np.uint8)
    return small[weak_tissue_mask(small, Tissue())]


@given(st.floats(0, 1), st.floats(0.5, 2))
def test_mixtures_of_the_published_dyes_pass(share, amount):
    """Whatever there is of each."""
    mixed = np.linspace(0, share, 200)[:, None]

    tissue = from_density(amount * (mixed * RUIFROK[2] + (1 - mixed) * RUIFROK[0]))

    assert not unlike_dab(tissue)


@given(st.floats(0.4, 1))
def test_eosin_does_not_pass(share):
    """Neither alone nor with haematoxylin."""
    mixed = np.linspace(0.2, share, 200)[:, None]

    tissue = from_density(mixed * RUIFROK[1] + (1 - mixed) * RUIFROK[0])

    assert "eosin" in unlike_dab(tissue)


def test_real_ihc_passes_in_its_own_colours_alone():
    """On the picture that scikit-image carries."""
    picture = data.immunohistochemistry()

    assert not unlike_dab(tissue_pixels(picture, 16))
    for name, change in CHANGES.items():
        assert unlike_dab(tissue_pixels(change(picture), 16)), name


def test_all_real_cores_pass_in_their_own_colours_alone(data_dir):
    """From 0 to 3+, at 8 µm/px."""
    for file in sorted((data_dir / "her2_ihc_tma").glob("*.jpg")):
        with Image.open(file) as opened:
            opened.draft("RGB", (opened.width // 8, opened.height // 8))
            picture = np.asarray(opened.convert("RGB"))

        assert not unlike_dab(tissue_pixels(picture, 4)), file.name
        for name, change in CHANGES.items():
            assert unlike_dab(tissue_pixels(change(picture), 4)), (file.name, name)


def test_too_pale_tissue_is_not_judged():
    """Its colours are noise."""
    assert not unlike_dab(np.full((1000, 3), (235, 215, 230), np.uint8))


def test_an_h_and_e_slide_gets_no_score(tmp_path, command_line):
    """One line says what was seen and what to do."""
    spec = make_spec(seed=3, ihc_score="3+", size_px=(1536, 1536), tissue_extent=0.7, pen=0, blur=0)
    write_phantom(tmp_path / "he.tif", spec)

    code, told, error = command_line("score-ihc", tmp_path / "he.tif")

    assert (code, told, error.count("\n")) == (2, "", 1)
    assert "this does not look like DAB and haematoxylin (its tissue is pink or purple, as with eosin)" in error
    assert "give an IHC slide" in error


@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "OS-1-detail.ome.tif"])
def test_real_h_and_e_slides_get_no_score(data_dir, command_line, name):
    """Skin and a carcinoma, which got 3+ and 2+."""
    code, told, error = command_line("score-ihc", data_dir / "slides" / name)

    assert (code, told) == (2, "")
    assert "does not look like DAB and haematoxylin" in error
