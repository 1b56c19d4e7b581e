"""Which tiles a tile training sees: inside tissue and regions, evenly drawn, and exactly what the slide shows."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from he2her2.errors import ManifestError
from he2her2.geometry import Point, Size, TileGrid
from he2her2.labels import IhcScore
from he2her2.manifest import SlideRow, read_manifest
from he2her2.preprocessing import tissue_mask, weak_tissue_mask
from he2her2.slides import open_slide
from he2her2.training.sampling import Draw
from he2her2.training.tiles.dataset import (
    SlideTiles,
    TileDataset,
    _even_shares,
    _OpenSlides,
    _tissue_rule,
    draw_tiles,
    few_of_many,
    find_tiles,
    readable_tiles,
)
from tests.labelled_slides import TINY
from tests.scored_slides import N_TILES, SIDE, changed, left_half, quick_config, scored_pixels, write_scored
from tests.slide_files import corrupt_tile
from tests.tissue_slides import GLASS, tissue_pixels, write_tissue

CONFIG = quick_config()
TILE = Size(64, 64)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """A slide of each score."""
    return write_scored(tmp_path_factory.mktemp("slides"), ["train"])


@pytest.fixture(scope="module")
def tiles(manifest):
    """Their tiles."""
    return look(manifest)


def look(manifest, config=CONFIG):
    return find_tiles(read_manifest(manifest).rows, TINY.input, config, tissue_by_score=False)


def made_up(name, score, n):
    """A slide with `n` tiles."""
    row = SlideRow(1, name, Path(name), patient_id=name, stain="IHC", ihc_score=score)
    return SlideTiles(row, TileGrid(np.arange(2 * n).reshape(n, 2), 64.0, 64, 0.25))


def origins(slide):
    return [Point(*origin) for origin in slide.grid.origins_l0.tolist()]


def test_tiles_lie_wholly_in_tissue_side_by_side(tiles):
    """No tile overlaps another, and there is tissue in each of the four mask pixels under a tile."""
    for slide in tiles:
        x, y = slide.grid.origins_l0.T
        with open_slide(slide.row.path) as opened:
            shown = np.stack([opened.read(origin, TILE, 0.25) for origin in origins(slide)])
        glass = (shown == GLASS).all(axis=3).reshape(-1, 2, 32, 2, 32).all(axis=(2, 4))

        assert len(slide) == N_TILES
        assert not (x % 64).any()
        assert not (y % 64).any()
        assert len(set(origins(slide))) == len(slide)
        assert not glass.any()


def test_tiles_inherit_the_slides_score(tiles):
    """0, 1+, 2+ and 3+ are classes 0 to 3."""
    assert [slide.label for slide in tiles] == [0, 1, 2, 3]
    assert TileDataset(tiles, TINY.input, CONFIG).labels.tolist() == np.repeat(range(4), N_TILES).tolist()


def test_annotations_limit_the_tiles(manifest, tiles):
    """Tiles of the left half only, where the left half is annotated."""
    left_half(manifest.parent / "left.png")

    inside = look(changed(manifest, "2+,train,", "2+,train,left.png"))

    assert [origins(slide) for slide in inside[:2]] == [origins(slide) for slide in tiles[:2]]
    assert origins(inside[2]) == [(x, y) for x, y in origins(tiles[2]) if x + 64 <= SIDE // 2]


def test_annotated_classes_limit_the_tiles(manifest, tiles):
    """Tumour does, by its name or by choice; stroma does not."""
    parts = [("Stroma", 0, SIDE), ("Tumor", 0, SIDE // 2)]
    (manifest.parent / "classes.geojson").write_text(json.dumps([_strip(*part) for part in parts]))
    rows = read_manifest(changed(manifest, "2+,train,", "2+,train,classes.geojson", "classes.csv")).rows

    inside = find_tiles(rows, TINY.input, CONFIG, tissue_by_score=False)
    chosen = find_tiles(rows[2:3], TINY.input, CONFIG, tissue_by_score=False, annotation_classes=["STROMA"])

    assert origins(inside[2]) == [(x, y) for x, y in origins(tiles[2]) if x + 64 <= SIDE // 2]
    assert origins(chosen[0]) == origins(tiles[2])


def _strip(name, left, right):
    """A region over the whole height."""
    ring = [[left, 0], [right, 0], [right, SIDE], [left, SIDE], [left, 0]]
    shape = {"type": "Polygon", "coordinates": [ring]}
    return {"type": "Feature", "geometry": shape, "properties": {"classification": {"name": name}}}


def test_slides_that_keep_few_of_many_tiles_are_named(tmp_path):
    """Ink over most of a slide leaves few tiles: told with both numbers, and the way to look at it."""
    manifest = write_scored(tmp_path, ["train"], ["0"])
    inked = tissue_pixels(SIDE, share=0.95)
    inked[: SIDE * 3 // 4, 32:-32] = (30, 70, 180)
    write_tissue(tmp_path / "inked.svs", inked, codec="zlib")
    config = quick_config("quality.apply=true", "quality.min_sharpness=0.01")

    slide = look(changed(manifest, "s0-0.svs", "inked.svs"), config)[0]
    line = few_of_many([slide, made_up("b", "0", 50)])

    assert 0 < 2 * len(slide) < slide.n_in_tissue
    assert line is not None
    assert line.startswith("1 of 2 slides keep fewer than half")
    assert f": s0-0 {len(slide)} of {slide.n_in_tissue};" in line
    assert few_of_many([made_up("b", "0", 50)]) is None


def test_a_few_of_many_slides_that_keep_few_tiles_are_named():
    """Five names and the number of the others."""
    line = few_of_many([replace(made_up(f"s{i}", "0", 2), n_in_tissue=56) for i in range(8)])

    assert line is not None
    assert "8 of 8 slides" in line
    assert "s0 2 of 56, s1 2 of 56, s2 2 of 56, s3 2 of 56, s4 2 of 56 and 3 more;" in line


def test_tissue_is_found_by_a_rule_that_does_not_know_the_score():
    """The same for every IHC score; the paper's knows it; H&E has its own."""
    rows = [replace(made_up("s", score, 1).row) for score in IhcScore]

    assert [_tissue_rule(row, by_score=False) for row in rows] == [weak_tissue_mask] * 4
    assert [_tissue_rule(row, by_score=True) for row in rows] == [weak_tissue_mask] * 2 + [tissue_mask] * 2
    assert [_tissue_rule(replace(row, stain="HE"), by_score=True) for row in rows] == [tissue_mask] * 4


def test_all_slides_without_tiles_are_told_together(manifest):
    """A missing mpp, glass alone and a broken file: three lines, and the good slide is not the problem."""
    folder = manifest.parent
    write_tissue(folder / "no-mpp.svs", scored_pixels("0", 0), mpp=None)
    write_tissue(folder / "blank.svs", np.full((SIDE, SIDE, 3), GLASS, np.uint8), codec="zlib")
    (folder / "broken.svs").write_bytes(b"II*\0 this is no slide")
    lines = ["slide_id,path,patient_id,stain,ihc_score,split,annotations"]
    lines += [f"{name},{name}.svs,{name},IHC,0,train," for name in ("no-mpp", "blank", "broken", "s0-0")]
    bad = folder / "bad.csv"
    bad.write_text("\n".join(lines) + "\n", "utf-8")

    with pytest.raises(ManifestError) as caught:
        look(bad)

    problems = caught.value.problems
    assert len(problems) == 4
    assert problems[0] == "3 of 4 slides give no tiles"
    assert [problem.split(":")[:2] for problem in problems[1:]] == [
        ["line 2", " no-mpp"],
        ["line 3", " blank"],
        ["line 4", " broken"],
    ]


def test_as_many_of_every_class_evenly_over_slides():
    """A large slide does not dominate, a small one gives all it has."""
    slides = [made_up("a", "0", 100), made_up("b", "0", 3), made_up("c", "0", 50), made_up("d", "3+", 60)]

    drawn = draw_tiles(slides, 23, seed=0)

    assert {slide.row.slide_id: len(slide) for slide in drawn.slides} == {"a": 10, "b": 3, "c": 10, "d": 23}
    assert drawn.per_class == 23
    assert drawn.missing == (IhcScore.ONE, IhcScore.TWO)


def test_the_poorest_class_sets_the_number():
    """All classes get as few tiles as it has, and a line says so."""
    slides = [made_up("a", "0", 100), made_up("b", "1+", 7), made_up("c", "2+", 9), made_up("d", "3+", 60)]

    drawn = draw_tiles(slides, 50, seed=0)

    assert [len(slide) for slide in drawn.slides] == [7] * 4
    assert drawn.in_words() == ("7 tiles of each of 4 scores (fewer than the 50 wanted), from 4 slides of 4 patients")


def test_what_is_drawn_does_not_depend_on_the_order_of_slides():
    """Only on names and seed."""
    slides = [made_up(name, score, 40) for name, score in (("a", "0"), ("b", "0"), ("c", "1+"), ("d", "1+"))]

    def drawn(given, seed):
        return {slide.row.slide_id: origins(slide) for slide in draw_tiles(given, 15, seed).slides}

    assert drawn(slides, 0) == drawn(slides[::-1], 0)
    assert drawn(slides, 0) != drawn(slides, 1)
    assert drawn(slides, 0)["a"] != drawn(slides, 0)["b"]


@given(available=st.lists(st.integers(0, 30), min_size=1, max_size=8), data=st.data())
def test_shares_are_as_even_as_can_be(available, data):
    """They add up, take no more than there is, and whoever gets less than another gives all it has, or one less."""
    wanted = data.draw(st.integers(0, sum(available)))

    shares = _even_shares(np.array(available), wanted)

    assert shares.sum() == wanted
    assert (shares <= available).all()
    assert all(share == there or share >= shares.max() - 1 for share, there in zip(shares, available, strict=True))


def test_more_than_there_is_cannot_be_shared():
    """A caller's bug."""
    with pytest.raises(ValueError, match="6 wanted of 5"):
        _even_shares(np.array([2, 3]), 6)


def test_a_batch_shows_what_the_slides_show(tiles):
    """Pixels are those of `Slide.read` at the tile's place, whatever the order, also when slides are opened anew."""
    dataset = TileDataset(tiles, TINY.input, CONFIG)
    dataset._open = _OpenSlides(CONFIG, limit=1)
    index = np.random.default_rng(0).permutation(len(dataset))[:12]
    uniform = np.zeros((12, 8), np.float32)

    batch = dataset[Draw(index, uniform)]

    places = [(slide.row.path, origin) for slide in tiles for origin in origins(slide)]
    for pixels, i in zip(batch.pixels.numpy(), index, strict=True):
        path, origin = places[i]
        with open_slide(path) as slide:
            assert np.array_equal(slide.read(origin, TILE, 0.25), pixels)
    assert batch.labels.tolist() == dataset.labels[index].tolist()
    assert batch.pixels.dtype == torch.uint8


def test_the_slides_last_used_stay_open(tiles):
    """Asked for again they are not opened again; the one unused for longest is closed."""
    first, second, third = (slide.row for slide in tiles[:3])
    opened = _OpenSlides(CONFIG, limit=2)
    kept, closed = opened.get(first), opened.get(second)

    assert opened.get(first) is kept
    opened.get(third)
    assert opened.get(first) is kept
    assert opened.get(second) is not closed


def test_another_process_opens_slides_of_its_own(tiles):
    """A dataset that is sent to a reader takes no open file with it."""
    dataset = TileDataset(tiles, TINY.input, CONFIG)
    draw_one = Draw(np.array([3]), np.zeros((1, 8), np.float32))
    shown = dataset[draw_one]

    sent = pickle.loads(pickle.dumps(dataset))

    assert dataset._open._slides
    assert not sent._open._slides
    assert torch.equal(sent[draw_one].pixels, shown.pixels)


@pytest.fixture(scope="module")
def damaged(manifest):
    """The slides, of which that of 0 is damaged in 3 compressed tiles of 64 px."""
    path = write_tissue(manifest.with_name("damaged.svs"), scored_pixels("0", 1), tile=64)
    for index in (30, 40, 50):
        corrupt_tile(path, index)
    return changed(manifest, "s0-0.svs", "damaged.svs", "damaged.csv")


def test_a_slide_that_is_too_damaged_is_refused(damaged):
    """More than 1 % of its tiles cannot be decoded."""
    drawn = draw_tiles(look(damaged), 20, seed=0)

    with pytest.raises(ManifestError, match=r"s0-0: \d of its 20 tiles cannot be decoded"):
        readable_tiles(drawn, CONFIG)


def test_a_tile_that_cannot_be_decoded_is_left_out_and_classes_stay_equal(damaged, monkeypatch):
    """Here 1 % would be less than a tile, so more are let pass."""
    monkeypatch.setattr("he2her2.method.tiles._MAX_UNREADABLE_SHARE", 0.5)
    drawn = draw_tiles(look(damaged), 20, seed=0)

    kept = readable_tiles(drawn, CONFIG)

    assert 16 < kept.per_class < 20
    assert [len(slide) for slide in kept.slides] == [kept.per_class] * 4
    assert kept.wanted == 20
    TileDataset(kept.slides, TINY.input, CONFIG)[Draw(np.arange(kept.n_tiles), np.zeros((kept.n_tiles, 8), np.float32))]


def test_whole_slides_are_drawn_as_they_are(tiles):
    """Nothing is lost where everything can be decoded."""
    drawn = draw_tiles(tiles, 12, seed=0)

    assert readable_tiles(drawn, CONFIG) is drawn
