"""One phantom slide: its file, its bytes, its truth, and what happens when it is stopped."""

import json
from dataclasses import replace

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image
from scipy import ndimage

from he2her2.config import PRESETS
from he2her2.errors import PhantomError
from he2her2.phantom import Painter, Window, make_spec, save_truth, write_phantom
from he2her2.phantom.sites import draw_dyes
from he2her2.preprocessing import tissue_mask
from he2her2.preprocessing.stain import macenko_stains

SMALL = {"size_px": (1600, 1300), "tissue_extent": 0.5, "tumour_share": 0.6, "foci": 1, "seed": 4}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A small slide of a 3+ tumour, its file and its truth."""
    path = tmp_path_factory.mktemp("phantom") / "small.tif"
    spec = make_spec(**SMALL, ihc_score="3+")
    return path, spec, write_phantom(path, spec)


def picture(**settings):
    """All pixels of a small slide before compression."""
    spec = make_spec(**{**SMALL, **settings})
    return Painter.of(spec).pixels(whole(spec))[0][..., :3].astype(int)


def whole(spec):
    return Window(0, 0, spec.size_px[0], spec.size_px[1], spec.mpp)


def truth_of(tmp_path, **settings):
    return write_phantom(tmp_path / "slide.tif", make_spec(**{**SMALL, **settings}))


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def on_mask(rgb_map):
    """(h, w) numbers of level-0 px averaged over mask px of 32."""
    h, w = (side // 32 * 32 for side in rgb_map.shape)
    return rgb_map[:h, :w].reshape(h // 32, 32, w // 32, 32).mean(axis=(1, 3))


def changed(before, after):
    """Mask px whose mean colour differs."""
    return on_mask(np.abs(before - after).mean(axis=2)) > 1.0


def test_openslide_knows_the_slide(drawn):
    """OpenSlide finds Aperio's layout, four levels and the resolution."""
    path, spec, _ = drawn

    with openslide.OpenSlide(path) as slide:
        assert slide.properties["openslide.vendor"] == "aperio"
        assert float(slide.properties["openslide.mpp-x"]) == spec.mpp
        assert slide.level_dimensions == ((1600, 1300), (400, 325), (100, 81), (50, 40))


def test_every_reader_sees_the_same_pixels(drawn):
    """OpenSlide and tifffile decode a level alike, edges included."""
    path, _, _ = drawn

    with openslide.OpenSlide(path) as slide, tifffile.TiffFile(path) as tiff:
        for level, size in enumerate(slide.level_dimensions):
            ours = np.asarray(slide.read_region((0, 0), level, size).convert("RGB"))
            np.testing.assert_array_equal(ours, tiff.pages[level].asarray())


def test_the_file_shows_what_was_drawn(drawn):
    """Level 0 is the drawing, up to what JPEG loses: colours are not mixed up."""
    path, spec, _ = drawn
    expected = Painter.of(spec).pixels(whole(spec))[0][..., :3]

    found = tifffile.imread(path, key=0)

    assert np.abs(expected.astype(int) - found).mean() < 4


@pytest.mark.parametrize(("level", "downsample"), [(1, 4), (2, 16), (3, 32)])
def test_small_levels_are_means_of_level_0(drawn, level, downsample):
    """Each level averages squares of level 0."""
    path, _, _ = drawn
    full, small = tifffile.imread(path, key=0).astype(float), tifffile.imread(path, key=level).astype(float)
    h, w = small.shape[:2]

    means = full[: h * downsample, : w * downsample].reshape(h, downsample, w, downsample, 3).mean(axis=(1, 3))

    assert np.abs((means - small).mean()) < 0.7
    assert np.corrcoef(means.ravel(), small.ravel())[0, 1] > 0.97


def test_the_same_settings_give_the_same_bytes(drawn, tmp_path):
    """Neither the run nor the number of processes changes a byte; the seed does."""
    path, spec, _ = drawn

    write_phantom(tmp_path / "again.tif", spec, workers=2)
    write_phantom(tmp_path / "other.tif", replace(spec, seed=7))

    assert (tmp_path / "again.tif").read_bytes() == path.read_bytes()
    assert (tmp_path / "other.tif").read_bytes() != path.read_bytes()


def test_a_region_looks_the_same_wherever_its_window_lies():
    """Blocks meet without a seam: overlapping windows agree in their overlap."""
    painter = Painter.of(make_spec(**SMALL))

    left = painter.pixels(Window(500, 400, 400, 300, 0.25))[0][:, 100:].astype(int)
    right = painter.pixels(Window(600, 400, 400, 300, 0.25))[0][:, :300].astype(int)

    assert np.abs(left - right).max() <= 6  # rounding of single precision, at most a step of the light table
    assert np.abs(left - right).mean() < 0.05


@pytest.mark.parametrize("kind", [KeyboardInterrupt, RuntimeError])
def test_a_stopped_run_leaves_nothing(tmp_path, monkeypatch, kind):
    """Whatever stops the drawing, no half slide and no draft stay."""
    draw = Painter.draw_block

    def stop(self, i, j):
        if (i, j) == (1, 1):
            raise kind
        return draw(self, i, j)

    monkeypatch.setattr(Painter, "draw_block", stop)

    with pytest.raises(kind):
        write_phantom(tmp_path / "slides" / "half.tif", make_spec(**SMALL))
    assert list((tmp_path / "slides").iterdir()) == []


def test_tumour_cells_lie_in_the_tumour(drawn):
    """Every tumour cell lies within the tumour's mask, a mask pixel more or less, and most of the mask holds some."""
    _, _, truth = drawn
    column, row = (truth.cells.xy_l0 // 32).astype(int).T

    assert len(column) > 100
    assert ndimage.binary_dilation(truth.tumour)[row, column].mean() > 0.99
    assert truth.tumour[row, column].mean() > 0.9


def test_tumour_is_where_nuclei_crowd(drawn):
    """In the picture, the tumour of the mask is darker in red light than the rest of the tissue."""
    path, _, truth = drawn
    red = on_mask(tifffile.imread(path, key=0)[..., 0].astype(float))
    tumour, tissue = (mask[: red.shape[0], : red.shape[1]] for mask in (truth.tumour, truth.tissue))

    assert red[tumour].mean() < red[tissue & ~tumour].mean() - 8


@pytest.mark.parametrize("seed", [1, 3])
def test_otsu_finds_the_tissue(tmp_path, seed):
    """The pipeline's tissue mask agrees with what is drawn, clear fat aside."""
    spec = make_spec(size_px=(4000, 3000), mpp=0.5, seed=seed, tissue_extent=0.4)
    truth = write_phantom(tmp_path / "slide.tif", spec)
    thumbnail = tifffile.imread(tmp_path / "slide.tif", key=3)

    found = tissue_mask(thumbnail, PRESETS["default"].tissue)
    h, w = found.shape
    solid, fat = truth.tissue[:h, :w], truth.fat[:h, :w]

    assert dice(found & ~fat, solid & ~fat) > 0.9


@pytest.mark.parametrize(
    ("setting", "value", "name"), [("pen", 2, "pen"), ("folds", 2, "folds"), ("blur", 0.3, "blur")]
)
def test_artefacts_are_where_the_truth_says(tmp_path, setting, value, name):
    """An artefact changes the picture inside its mask and nowhere else."""
    mask = getattr(truth_of(tmp_path, **{setting: value}), name)

    found = changed(picture(), picture(**{setting: value}))
    said = mask[: found.shape[0], : found.shape[1]]

    assert said.any()
    assert found[said].mean() > 0.6  # blank and flat px may stay as they were
    assert found[~ndimage.binary_dilation(said, iterations=2)].mean() < 0.01  # borders are soft


def test_without_artefacts_their_masks_are_empty(drawn):
    """A clean slide says that it is clean."""
    _, _, truth = drawn

    assert [mask.sum() for mask in (truth.pen, truth.folds, truth.blur)] == [0, 0, 0]


def test_blur_takes_the_share_that_was_asked_for(tmp_path):
    """Blur is a share of the tissue."""
    truth = truth_of(tmp_path, blur=0.4)

    assert truth.blur.sum() / truth.tissue.sum() == pytest.approx(0.4, abs=0.05)


@pytest.mark.parametrize("extent", [0.2, 0.6])
@pytest.mark.parametrize("foci", [1, 3])
def test_tissue_and_foci_are_as_asked_for(extent, foci):
    """Tissue covers its share of the slide, tumour about its share of the tissue, in so many pieces."""
    spec = make_spec(seed=9, size_px=(8000, 8000), tissue_extent=extent, tumour_share=0.3, foci=foci)

    outlines = Painter.of(spec).anatomy.outlines
    tissue, tumour = outlines.tissue.values > 0, outlines.tumour.values > 0

    assert tissue.mean() == pytest.approx(extent, abs=0.01)
    assert tumour.sum() / tissue.sum() == pytest.approx(0.3, abs=0.06)
    assert not (tumour & ~tissue).any()
    assert ndimage.label(tumour)[1] == foci


def test_foci_that_fall_too_close_are_drawn_anew():
    """A patient whose first two foci leave too little tissue around them gets two others, not an error."""
    spec = make_spec(seed=8100351505084185960, size_px=(8192, 8192))

    outlines = Painter.of(spec).anatomy.outlines
    tumour = outlines.tumour.values > 0

    assert tumour.sum() / (outlines.tissue.values > 0).sum() == pytest.approx(0.45, abs=0.06)


@pytest.mark.parametrize("mpp", [0.23, 0.25, 0.5])
def test_the_same_tissue_at_every_resolution(tmp_path, mpp):
    """Resolution changes the pixels, not the patient: the tumour cells stand at the same places in µm."""
    side = round(400 / mpp / 2) * 2
    spec = make_spec(seed=3, size_px=(max(side, 512), max(side, 512)), mpp=mpp, tissue_extent=0.6, foci=1)

    write_phantom(tmp_path / "slide.tif", spec)

    with openslide.OpenSlide(tmp_path / "slide.tif") as slide:
        assert float(slide.properties["openslide.mpp-x"]) == mpp


def test_nothing_of_her2_shows_at_signal_0():
    """With signal 0 the H&E of a 3+ tumour is, pixel for pixel, that of a negative one: no feature can tell them."""
    negative = picture(ihc_score="0", signal=0.0)

    for score, ish in (("1+", None), ("2+", "negative"), ("2+", "positive"), ("3+", None)):
        np.testing.assert_array_equal(negative, picture(ihc_score=score, ish=ish, signal=0.0))


def test_her2_shows_with_a_signal_and_only_in_positive_tumours():
    """A signal changes the H&E of an amplified tumour and of no other."""
    negative = picture(ihc_score="0", signal=0.0)

    np.testing.assert_array_equal(negative, picture(ihc_score="2+", ish="negative", signal=1.0))
    assert (negative != picture(ihc_score="3+", signal=1.0)).any()
    assert (negative != picture(ihc_score="2+", ish="positive", signal=1.0)).any()


def test_the_twin_shows_the_same_cells(drawn, tmp_path):
    """H&E and IHC of a patient hold the same tumour cells with the same HER2."""
    _, spec, truth = drawn

    twin = write_phantom(tmp_path / "ihc.tif", replace(spec, stain="IHC"))

    np.testing.assert_array_equal(truth.cells.xy_l0, twin.cells.xy_l0)
    np.testing.assert_array_equal(truth.cells.level, twin.cells.level)
    assert truth.counts == twin.counts


def test_clones_gather_her2():
    """Heterogeneity keeps the share of stained cells and makes neighbours alike."""
    levels = {}
    for h in (0.0, 1.0):
        spec = make_spec(seed=2, size_px=(6000, 6000), tumour_share=0.7, foci=1, ihc_score="3+", heterogeneity=h)
        painter = Painter.of(spec)
        _, cells = painter.pixels(Window(2000, 2000, 2000, 2000, 0.25))
        levels[h] = cells.take(cells.kind == 0)

    def likeness(cells):
        high = (cells.level == 3).astype(float)
        block = (cells.x // 60).astype(int) * 1000 + (cells.y // 60).astype(int)
        means = [high[block == b].mean() for b in np.unique(block) if (block == b).sum() > 8]
        return np.std(means)

    assert likeness(levels[1.0]) > 1.5 * likeness(levels[0.0])


def test_quality_and_site_are_settings(tmp_path):
    """A lower JPEG quality makes a smaller file; another site other colours."""
    sizes = {}
    for quality in (40, 90):
        truth_of(tmp_path, jpeg_quality=quality)
        sizes[quality] = (tmp_path / "slide.tif").stat().st_size

    assert sizes[40] < 0.6 * sizes[90]
    assert np.abs(picture(site="her2sc-like").mean((0, 1)) - picture(site="brca-like").mean((0, 1))).max() > 3


def test_a_stain_of_ones_own_takes_the_place_of_the_sites():
    """Macenko finds the dyes that were asked for, within what two dyes in one pixel hide; IHC keeps its own."""
    haematoxylin, eosin = (0.50, 0.80, 0.33), (0.10, 0.95, 0.29)
    staining = {"haematoxylin": haematoxylin, "eosin": eosin, "strengths": (1.2, 1.3)}

    found = macenko_stains(picture(staining=staining).astype(np.uint8))
    stained = picture(stain="IHC", staining=staining)

    assert np.dot(found.haematoxylin, haematoxylin) / np.linalg.norm(haematoxylin) > 0.99
    assert np.dot(found.eosin, eosin) / np.linalg.norm(eosin) > 0.99
    np.testing.assert_array_equal(stained, picture(stain="IHC"))


def test_a_stain_varies_between_slides_by_its_spreads():
    """Dyes are unit vectors, around the given ones and as far from them as asked; without spread they are these."""
    staining = {"haematoxylin": (0.6, 0.7, 0.3), "eosin": (0.2, 0.9, 0.4), "strengths": (1.1, 0.8)}
    varied = staining | {"vector_spread": 0.05, "strength_spread": 0.2}

    dyes = [draw_dyes(make_spec(seed=seed, staining=varied)) for seed in range(200)]
    firsts = np.array([dye.first for dye in dyes])
    strengths = np.log([dye.first_strength for dye in dyes])

    np.testing.assert_allclose(np.linalg.norm(firsts, axis=1), 1)
    assert 0.02 < firsts.std(axis=0).max() < 0.06
    assert strengths.mean() == pytest.approx(np.log(1.1), abs=0.05)
    assert strengths.std() == pytest.approx(0.2, rel=0.2)
    assert draw_dyes(make_spec(staining=staining)) == draw_dyes(make_spec(seed=1, staining=staining))


def test_truth_is_written_beside_the_slide(drawn, tmp_path):
    """The folder holds the masks as pictures and the labels as JSON."""
    _, _, truth = drawn

    save_truth(truth, tmp_path / "truth")
    labels = json.loads((tmp_path / "truth" / "truth.json").read_text("utf-8"))

    assert (labels["ihc_score"], labels["her2_status"], labels["mask_px_l0"]) == ("3+", "positive", 32.0)
    assert labels["share_of_tumour_cells"]["intense_complete"] > 0.1
    with Image.open(tmp_path / "truth" / "tumour.png") as mask:
        np.testing.assert_array_equal(np.asarray(mask) > 0, truth.tumour)
    with np.load(tmp_path / "truth" / "tumour_cells.npz") as cells:
        np.testing.assert_array_equal(cells["level"], truth.cells.level)


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"signal": 1.5}, "signal"),
        ({"mpp": 0.3}, "mpp"),
        ({"size_px": (100, 4000)}, "size_px"),
        ({"size_px": "3072,3072"}, "size_px: write it as a list"),
        ({"ihc_score": "4+"}, "ihc_score"),
        ({"ihc_score": "2+"}, "ish"),
        ({"ihc_score": "3+", "ish": "positive"}, "ish"),
        ({"site": "home"}, "site"),
        ({"jpeg_quality": 5}, "jpeg_quality"),
        ({"staining": {"haematoxylin": (0.6, 0.7, 0.3)}}, "staining.eosin"),
        ({"colour": "red"}, "colour"),
        ({"seed": -1}, "seed"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(settings, names):
    """Wrong settings raise an error of one line."""
    with pytest.raises(PhantomError, match=names) as caught:
        make_spec(**settings)
    assert "\n" not in str(caught.value)


def test_settings_without_room_are_refused():
    """Foci that cannot cover their share are refused before anything is drawn."""
    with pytest.raises(PhantomError, match="20 foci cannot cover 90%"):
        Painter.of(make_spec(size_px=(2000, 2000), tumour_share=0.9, foci=20))
