"""Roles of a file's images (slide, level, picture beside it), and sources of its scale that contradict each other."""

import re
from contextlib import closing
from timeit import repeat
from typing import Any

import numpy as np
import pytest
import tifffile

from he2her2.errors import MppError, SlideError, SlideOpenError, UnreadableRegionError
from he2her2.geometry import Point, Size
from he2her2.phantom import make_spec, write_phantom
from he2her2.slides import inspect_slide, open_slide
from he2her2.slides.backend_openslide import _other_mpps
from he2her2.slides.levels import Rect
from he2her2.slides.ome_xml import read_ome
from he2her2.slides.resolution import scale_contradictions, settle_mpp, stated_mpp
from he2her2.slides.tiff_header import FileBytes
from he2her2.slides.tiff_image import TiffImage
from he2her2.slides.tiff_roles import _Spots
from tests.slide_files import SlideSpec, corrupt_tile, pyramid, synthetic_pixels, write_dicom, write_ndpi, write_slide

PIXELS = synthetic_pixels(1024, 768)
LEVELS = pyramid(PIXELS, (1, 2, 4))
OTHER = synthetic_pixels(1024, 768, seed=9)
BOTH = ("tiff", "openslide")
JPEG: dict[str, Any] = {"photometric": "rgb", "compression": "jpeg", "compressionargs": {"level": 85}, "metadata": None}
TILED: dict[str, Any] = {"tile": (64, 64)}


def aperio(w=1024, h=768, mpp="0.2500", mag="40", more=""):
    """Aperio's description of an image."""
    head = f"Aperio Image Library v12.0.15 \r\n{w}x{h} [0,0 {w}x{h}] (64x64) JPEG/RGB Q=80"
    return f"{head}|AppMag = {mag}|MPP = {mpp}{more}"


def write(path, *pages):
    """A TIFF of pages: (pixels, description, how)."""
    with tifffile.TiffWriter(path) as tiff:
        for pixels, description, how in pages:
            tiff.write(pixels, description=description, **(JPEG | TILED | how))
    return path


def sizes(slide):
    """Sizes of the levels."""
    return [tuple(level.size) for level in slide.levels]


def beside(name, pixels=None, **how):
    """A tiled page that calls itself something beside the slide."""
    pixels = np.full((192, 256, 3), (30, 140, 60), np.uint8) if pixels is None else pixels
    return pixels, f"Aperio Image Library v12.0.15 \r\n{name} 256x192", how


@pytest.mark.parametrize("backend", BOTH)
@pytest.mark.parametrize("name", ["macro", "label", "Macro", "unnamed"])
def test_a_tiled_page_beside_the_slide_is_no_level(tmp_path, backend, name):
    """By its name, by its flag, or because it shows another picture: it never supplies the masks."""
    page = beside(name) if name != "unnamed" else (beside("")[0], aperio(256, 192), {})
    path = write(tmp_path / "a.svs", (LEVELS[0], aperio(), {}), (LEVELS[1], aperio(512, 384), {}), page)

    with open_slide(path, backend=backend) as slide:
        assert sizes(slide) == [(1024, 768), (512, 384)]
        assert (slide.thumbnail(4.0) > 100).any()
        if name == "unnamed":
            assert any("256 x 192 px shows another picture than level 0" in text for text in slide.cautions)


@pytest.mark.parametrize(
    ("second_line", "kind", "name"), [("label", 0, "label"), ("", 1, "label"), ("1024x768 ->", 1, "thumbnail")]
)
def test_a_label_in_the_place_of_the_thumbnail_is_the_label(tmp_path, second_line, kind, name):
    """Of a slide without thumbnail: who shows the "thumbnail" would show a person's name."""
    strips: dict[str, Any] = {"tile": None, "rowsperstrip": 16, "subfiletype": kind}
    path = write(tmp_path / "a.svs", (PIXELS, aperio(), {}), beside(second_line, **strips))

    with open_slide(path) as slide:
        assert list(slide.associated) == [name]


@pytest.mark.parametrize("backend", BOTH)
def test_a_macro_of_glass_and_a_small_section_is_no_level(tmp_path, backend):
    """Much of both is pale: the spots of most detail tell them apart."""
    macro = np.full((192, 256, 3), 240, np.uint8)
    macro[140:180, 190:250] = pyramid(PIXELS, (12,))[0][:40, :60]
    path = write(tmp_path / "a.svs", (LEVELS[0], aperio(), {}), (macro, aperio(256, 192), {}))

    with open_slide(path, backend=backend) as slide:
        assert sizes(slide) == [(1024, 768)]


@pytest.mark.parametrize("backend", BOTH)
@pytest.mark.parametrize("order", [(2, 1, 0), (1, 2, 0)])
def test_a_level_with_exchanged_channels_is_no_level(tmp_path, backend, order):
    """Networks would see other colours at its scale; a later level in the order of level 0 is kept."""
    wrong = LEVELS[1][..., list(order)]
    path = write(
        tmp_path / "a.svs", (PIXELS, aperio(), {}), (wrong, aperio(512, 384), {}), (LEVELS[2], aperio(256, 192), {})
    )

    with open_slide(path, backend=backend) as slide:
        assert sizes(slide) == [(1024, 768), (256, 192)]
    found = [problem for problem in inspect_slide(path, backend=backend).problems if "exchanged" in problem.found]
    assert [(one.found.partition(",")[0], one.remedy) for one in found] == [
        ("its image of 512 x 384 px has colour channels exchanged against level 0", "it is not used")
    ]


@pytest.mark.parametrize("layout", ["generic", "subifd", "ome"])
def test_exchanged_channels_are_found_in_every_layout(tmp_path, layout):
    """Red and blue of all levels but the first."""
    levels = [LEVELS[0], *(level[..., ::-1] for level in LEVELS[1:])]

    with open_slide(write_slide(tmp_path / "a.tif", levels, SlideSpec(layout=layout))) as slide:
        assert sizes(slide) == [(1024, 768)]
        assert sum("has colour channels exchanged against level 0" in text for text in slide.cautions) == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda level: level,
        lambda level: np.repeat(level.mean(axis=2, keepdims=True), 3, axis=2),
        lambda level: level * 0.97 + (6, -4, 3),
        lambda level: level + np.random.default_rng(0).normal(0, 6, level.shape),
        lambda level: 128 + (level - level.mean(axis=2, keepdims=True)) * 0.05 + (level[..., :1] - 128.0) / 2,
    ],
    ids=["same", "grey", "other balance", "noise", "nearly grey"],
)
def test_sound_levels_have_no_exchanged_channels(tmp_path, change):
    """A level that a scanner sharpened, balanced or stored in grey is told apart from one in another order."""
    levels = [np.clip(change(level.astype(float)), 0, 255).astype(np.uint8) for level in LEVELS]
    if np.ptp(levels[0], axis=2).max() > 60:  # of a picture in colour the finest is as it was
        levels[0] = LEVELS[0]

    with open_slide(write_slide(tmp_path / "a.svs", levels)) as slide:
        assert sizes(slide) == [(1024, 768), (512, 384), (256, 192)]
        assert not slide.cautions


def test_real_slides_and_phantoms_have_no_exchanged_channels(data_dir, tmp_path):
    """And every one of them that has levels is found once its levels are exchanged."""
    write_phantom(tmp_path / "phantom.tif", make_spec(seed=3, size_px=(2048, 2048)), workers=1)
    for path in (*sorted((data_dir / "slides").iterdir()), tmp_path / "phantom.tif"):
        if path.name == "broken.svs":
            continue
        with open_slide(path, mpp=0.5) as slide:
            assert not any("exchanged" in text for text in slide.cautions), path.name
            size = Size(1024, 1024)
            corner = Point((slide.size_l0.w - size.w) // 2, (slide.size_l0.h - size.h) // 2)
            pixels = slide.read(corner, size, slide.mpp)
        fine, coarse = pyramid(pixels, (1, 4))
        for order, n_levels in ((slice(None), 2), (slice(None, None, -1), 1)):
            with open_slide(write_slide(tmp_path / "again.svs", [fine, coarse[..., order]])) as again:
                assert len(again.levels) == n_levels, path.name


def rgba(path, *levels):
    """A TIFF that only OpenSlide reads."""
    how: dict[str, Any] = {"photometric": "rgb", "extrasamples": ["unassalpha"], "compression": "zlib"}
    with tifffile.TiffWriter(path) as tiff:
        for i, level in enumerate(levels):
            opaque = np.dstack([level, np.full(level.shape[:2], 255, np.uint8)])
            tiff.write(opaque, subfiletype=bool(i), metadata=None, **TILED, **how)
    return path


def dicom(folder, *levels):
    """A DICOM series."""
    for i, level in enumerate(levels):
        write_dicom(folder / f"{i}.dcm", level, 0.25 * 2**i, instance=i + 1)
    return folder / "0.dcm"


@pytest.mark.parametrize("writer", [rgba, dicom, lambda path, *levels: write_ndpi(path, levels)])
def test_every_format_of_openslide_is_compared(tmp_path, writer):
    """A level of another slide would supply the masks; those of the slide itself are kept, and nothing is said."""
    other = pyramid(OTHER, (4,))
    sound, mixed = writer(tmp_path / "sound.x", *LEVELS), writer(tmp_path / "mixed.x", *LEVELS[:2], *other)

    with open_slide(sound, mpp=0.25) as slide:
        assert (slide.backend, sizes(slide)[:3], slide.metadata.cautions) == ("openslide", [*map(size, LEVELS)], ())
    with open_slide(mixed, mpp=0.25) as slide:
        assert (256, 192) not in sizes(slide)
        assert "256 x 192 px shows another picture than level 0; it is not used" in slide.metadata.cautions[0]


def test_damage_where_levels_are_compared_refuses_no_slide(tmp_path):
    """It killed the handle, and the slide could not be opened; other spots are compared, and damage counts later."""
    path = write_slide(tmp_path / "a.svs", LEVELS)
    for index in range(6):
        corrupt_tile(path, index, page=2)

    with open_slide(path, backend="openslide") as slide:
        assert sizes(slide) == [*map(size, LEVELS)]
        with pytest.raises(UnreadableRegionError):
            slide.read_level(2, Rect(0, 0, 64, 64))


def test_hamamatsu_beyond_4_gb(tmp_path):
    """Its directories have offsets of 64 bits, whose lower half leads into the pixels: it was "cut short"."""
    path = write_ndpi(tmp_path / "a.tif", LEVELS[:1], hole=(1 << 32) - 1000)

    with open_slide(path) as slide:
        assert (slide.vendor, slide.mpp, slide.size_l0) == ("hamamatsu", 0.25, size(LEVELS[0]))


def size(level):
    """Width and height."""
    return level.shape[1], level.shape[0]


@pytest.mark.parametrize("backend", BOTH)
@pytest.mark.parametrize("blank", [255, 240, 0])
@pytest.mark.parametrize("part", [np.s_[96:], np.s_[:64], np.s_[:, 128:], np.s_[:, :72]])
def test_a_level_that_is_blank_in_part_is_not_used(tmp_path, backend, blank, part):
    """The writing of a pyramid was interrupted: the rest of the level agrees, and half of the tissue would be lost."""
    levels = [LEVELS[0], LEVELS[2].copy()]
    levels[1][part] = blank
    pages: list[Any] = [(level, aperio(*size(level)), {}) for level in levels]

    with open_slide(write(tmp_path / "a.svs", *pages), backend=backend) as slide:
        assert sizes(slide) == [(1024, 768)]
        assert "256 x 192 px is blank in part where a finer level shows tissue; it is not used" in slide.cautions[0]


@pytest.mark.parametrize("backend", BOTH)
def test_a_pale_section_on_much_glass_has_all_its_levels(tmp_path, backend):
    """Blank parts are blank on every level, and pale tissue is no contradiction, however it was compressed."""
    pixels = np.full((1536, 2048, 3), 243, np.uint8)
    grain = np.random.default_rng(0).integers(-6, 7, (600, 700, 1))
    pixels[100:700, 80:780] = np.array((238, 217, 229)) + grain
    pixels[900:1300, 1500:1800] = PIXELS[:400, :300]
    pages: list[Any] = [
        (level, aperio(*size(level)), {"compressionargs": {"level": 30}}) for level in pyramid(pixels, (1, 4, 16))
    ]

    with open_slide(write(tmp_path / "a.svs", *pages), backend=backend) as slide:
        assert (len(slide.levels), slide.metadata.cautions) == (3, ())


def test_a_page_of_another_shape_is_no_level(tmp_path):
    """It used to leave the file to a reader that takes it for one."""
    path = write(tmp_path / "a.svs", (LEVELS[0], aperio(), {}), beside("", np.full((128, 320, 3), 90, np.uint8)))

    with open_slide(path) as slide:
        assert (slide.backend, sizes(slide)) == ("tiff", [(1024, 768)])


def test_a_small_macro_before_the_slide(tmp_path):
    """The largest image is the slide, wherever it stands."""
    tags: dict[str, Any] = {"resolution": (4e4, 4e4), "resolutionunit": 3}
    cases: dict[str, list[Any]] = {
        "a.svs": [(LEVELS[2], aperio(256, 192), {}), (LEVELS[0], aperio(), {})],
        "b.tif": [(OTHER[:192, :256], None, tags), (LEVELS[0], None, tags)],
    }
    for name, pages in cases.items():
        with open_slide(write(tmp_path / name, *pages)) as slide:
            assert slide.size_l0 == (1024, 768)
            assert slide.mpp == pytest.approx(0.25)


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("text", ["Barcode: S24-1234;scanner X", '{"label": "HER2 3+"}', "macro-metastasis"])
def test_a_slide_described_by_a_word_for_pictures_beside_it(tmp_path, text, everywhere):
    """The largest image is the slide, and its reductions are levels, whatever the free text says."""
    tags: dict[str, Any] = {"resolution": (4e4, 4e4), "resolutionunit": 3}
    pages: list[Any] = [(level, text if everywhere or not i else None, tags) for i, level in enumerate(LEVELS)]
    named = ome(tmp_path / "b.ome.tif", (text, LEVELS[0], [], UM), ("preview", LEVELS[1], [], UM))

    with open_slide(write(tmp_path / "a.tif", *pages)) as slide:
        assert (sizes(slide), slide.cautions) == ([(1024, 768), (512, 384), (256, 192)], ())
        assert slide.mpp == pytest.approx(0.25)
    with open_slide(named) as slide:
        assert slide.size_l0 == (1024, 768)
        assert slide.mpp == 0.25


def test_a_macro_that_is_larger_than_the_slide(tmp_path):
    """Of a small scan: the slide is what has no such name, and the macro is told."""
    page = beside("macro", OTHER[:600], resolution=(4e4, 4e4), resolutionunit=3)
    path = write(tmp_path / "a.svs", (LEVELS[1], aperio(512, 384), {}), page)

    with open_slide(path) as slide:
        assert slide.size_l0 == (512, 384)
        assert slide.cautions == ("its picture 'macro' of 1024 x 600 px is larger than what is read as the slide",)


def ome(path, *images, **how):
    """An OME-TIFF of images: (name, pixels, levels below, metadata)."""
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for name, pixels, below, metadata in images:
            options: dict[str, Any] = {"photometric": "rgb", "tile": (64, 64), "compression": "zlib"} | how
            tiff.write(pixels, subifds=len(below), metadata={"axes": "YXS", "Name": name} | metadata, **options)
            for level in below:
                tiff.write(level, subfiletype=1, **options)
    return path


UM: dict[str, Any] = {
    "PhysicalSizeX": 0.25,
    "PhysicalSizeXUnit": "um",
    "PhysicalSizeY": 0.25,
    "PhysicalSizeYUnit": "um",
}


@pytest.mark.parametrize("own", [{}, UM, UM | {"PhysicalSizeX": 16.0, "PhysicalSizeY": 16.0}])
def test_an_ome_macro_that_comes_first(tmp_path, own):
    """The slide, its levels and its own µm per pixel are taken, whatever the macro states."""
    macro = OTHER[:192, :600]
    path = ome(tmp_path / "a.ome.tif", ("macro image", macro, [], own), ("slide 40x", LEVELS[0], LEVELS[1:], UM))

    with open_slide(path) as slide:
        assert (sizes(slide), slide.mpp) == ([(1024, 768), (512, 384), (256, 192)], 0.25)
        assert set(slide.associated) == {"macro image"}
        assert np.array_equal(slide.read(Point(0, 0), Size(1024, 768), 0.25), PIXELS)
        assert slide.cautions == ()


def test_a_second_section_is_said(tmp_path):
    """In an OME-TIFF, in an SVS and in a plain TIFF: one is read, and the other named."""
    tags: dict[str, Any] = {"resolution": (4e4, 4e4), "resolutionunit": 3}
    for path in (
        ome(tmp_path / "a.ome.tif", ("one", PIXELS, [], UM), ("two", OTHER[:700], [], UM)),
        write(tmp_path / "b.svs", (PIXELS, aperio(), {}), (OTHER[:700], aperio(1024, 700), {})),
        write(tmp_path / "c.tif", (PIXELS, None, tags), (OTHER[:700], None, tags)),
    ):
        with open_slide(path) as slide:
            assert slide.size_l0 == (1024, 768)
            assert len(slide.cautions) == 1
            assert "1024 x 700" in slide.cautions[0]


def test_a_small_section_at_the_slides_own_scale_is_said(tmp_path):
    """A biopsy's cores, scanned apart: the smaller ones were lost without a word. Its levels are not told."""
    core, coarse, other = OTHER[:200, :400], OTHER[:100, :200], OTHER[:150, :400]
    pages: Any = (("one", PIXELS, [], UM), ("two", core, [], UM), ("two, 2", coarse, [], UM), ("label", other, [], UM))
    tiny: Any = ("image #3", other, [], UM | {"PhysicalSizeX": 16.0, "PhysicalSizeY": 16.0})

    with open_slide(ome(tmp_path / "a.ome.tif", *pages, tiny)) as slide:
        (caution,) = slide.cautions
        assert "a second image of 400 x 200 px beside the slide's 1024 x 768, which is not read" in caution


def test_a_section_of_nearly_the_same_size_is_a_second_section(tmp_path):
    """It has the slide's shape, and is too large to be a level of it."""
    pages: list[Any] = [(PIXELS, aperio(), {}), (OTHER[:720, :960], aperio(960, 720), {})]

    with open_slide(write(tmp_path / "a.svs", *pages)) as slide:
        assert slide.size_l0 == (1024, 768)
        (caution,) = slide.cautions
        assert "a second image of 960 x 720 px beside the slide's 1024 x 768" in caution


@pytest.mark.parametrize("side", [(768, 1024), (800, 1100)])
@pytest.mark.parametrize("first", [True, False])
def test_a_grey_mask_beside_the_slide_is_not_the_slide(tmp_path, side, first):
    """In an OME-TIFF, of its size or larger, wherever it stands; a grey image alone is refused as before."""
    how: dict[str, Any] = {"tile": (64, 64), "compression": "zlib"}
    mask: tuple[Any, dict[str, Any]] = (np.zeros(side, np.uint8), {"axes": "YX", "Name": "mask"})
    images = [mask, (PIXELS, {"axes": "YXS", "Name": "HE"} | UM)]
    for name, written in (("a", images if first else images[::-1]), ("grey", images[:1])):
        with tifffile.TiffWriter(tmp_path / f"{name}.ome.tif", ome=True) as tiff:
            for pixels, metadata in written:
                tiff.write(pixels, photometric="rgb" if pixels.ndim == 3 else "minisblack", metadata=metadata, **how)

    with open_slide(tmp_path / "a.ome.tif") as slide:
        assert (slide.size_l0, slide.mpp, slide.cautions) == ((1024, 768), 0.25, ())
    with pytest.raises(SlideOpenError, match="its largest image has 1 channels"):
        open_slide(tmp_path / "grey.ome.tif", mpp=0.25)


def test_levels_without_a_flag_are_levels(tmp_path):
    """Motic's: reductions that show the slide, though no tag says so; and their µm stand in the description."""
    text = "Motic V1.0.0 1024x768 [0,0 1024x768] [64x64] JPEG/RGB Q = 75|AppMag = 40|MPP = 0.257290"
    pages: list[Any] = [(level, text if not i else None, {}) for i, level in enumerate(LEVELS)]

    with open_slide(write(tmp_path / "a.svs", *pages)) as slide:
        assert len(slide.levels) == 3
        assert (slide.mpp, slide.settled_mpp.source) == (0.25729, "its description")


@pytest.mark.parametrize(
    ("order", "blocks", "directories"),
    [
        ("XYCZT", "", (0, 1, 2)),
        ("XYZCT", "", (0, 3, 6)),
        ("XYZCT", "<TiffData/>", (0, 3, 6)),  # all planes, from the first directory on
        ("XYZCT", '<TiffData IFD="7" PlaneCount="9"/>', (7, 10, 13)),
        (
            "XYZCT",
            "".join(f'<TiffData FirstC="{2 - k // 3}" FirstZ="{k % 3}" IFD="{k}"/>' for k in range(9)),
            (6, 3, 0),
        ),
    ],
)
def test_channels_are_found_among_focal_planes(order, blocks, directories):
    """Those of the first plane, in whichever order planes are stored and however their directories are told."""
    pixels = f'DimensionOrder="{order}" SizeX="9" SizeY="9" SizeC="3" SizeZ="3" SizeT="1"'
    (image,) = read_ome(f"<OME><Image><Pixels {pixels}>{blocks}</Pixels></Image></OME>", "a.tif")

    assert image.directories == directories


def test_focal_planes_are_told_and_the_sharp_one_read(tmp_path):
    """Pages of one size with OffsetZ are planes of one slide; plane 0 is read whichever comes first."""
    blurred = [np.full_like(level, 128) for level in LEVELS]
    pages: list[Any] = [(b, aperio(more="|OffsetZ = 0.9"), {}) for b in blurred[:2]]
    pages += [(level, aperio(level.shape[1], level.shape[0]), {}) for level in LEVELS[:2]]

    with open_slide(write(tmp_path / "z.svs", *pages)) as slide:
        assert sizes(slide) == [(1024, 768), (512, 384)]
        assert slide.read(Point(0, 0), Size(1024, 768), 0.25).std() > 5
        assert slide.cautions == ("it has 2 focal planes; only the one nearest to its plane 0 is read",)


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (["Red", "Green", "Blue"], (0, 1, 2)),
        (["B", "G", "R"], (2, 1, 0)),
        (None, (0, 1, 2)),
        (["0", "1", "2"], (0, 1, 2)),
    ],
)
def test_channels_stored_apart_are_rgb(tmp_path, names, order):
    """Three grey images for red, green and blue, in the order that their names give."""
    path = tmp_path / "a.ome.tif"
    metadata: dict[str, Any] = UM | {"axes": "CYX"} | ({} if names is None else {"Channel": {"Name": names}})
    how: dict[str, Any] = {"photometric": "minisblack", "tile": (64, 64), "compression": "zlib"}
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(np.moveaxis(PIXELS, 2, 0)[list(order)], subifds=1, metadata=metadata, **how)
        tiff.write(np.moveaxis(LEVELS[1], 2, 0)[list(order)], subfiletype=1, **how)

    with open_slide(path) as slide:
        assert (slide.backend, sizes(slide), slide.mpp) == ("tiff", [(1024, 768), (512, 384)], 0.25)
        assert np.array_equal(slide.read(Point(0, 0), Size(1024, 768), 0.25), PIXELS)


@pytest.mark.parametrize("axes", ["CYX", "YXS"])
def test_channels_without_a_description_are_rgb(tmp_path, axes):
    """Neither does the documented way to write OME-TIFF by libvips; the pixels say whether they are grey."""
    path = tmp_path / "a.ome.tif"
    pixels, photometric = (PIXELS, "rgb") if axes == "YXS" else (np.moveaxis(PIXELS, 2, 0), "minisblack")
    tifffile.imwrite(path, pixels, tile=(64, 64), photometric=photometric, ome=True, metadata=UM | {"axes": axes})
    described = str(tifffile.tiffcomment(path))
    bare = re.sub("<Channel.*?</Channel>", "", described)
    tifffile.tiffcomment(path, bare.encode())

    with open_slide(path) as slide:
        assert "<Channel" in described
        assert "<Channel" not in bare
        assert np.array_equal(slide.read(Point(0, 0), Size(1024, 768), 0.25), PIXELS)


R, G, B, WHITE, ORANGE = -16776961, 16711935, 65535, -1, -5963521
"""Colours of channels, as OME-XML writes them."""


def channels(path, names, colours, order=(0, 1, 2)):
    """An OME-TIFF of three grey channels with names and colours."""
    metadata: dict[str, Any] = UM | {"axes": "CYX", "Channel": {"Name": names, "Color": colours}}
    planes = np.moveaxis(PIXELS, 2, 0)[list(order)]
    tifffile.imwrite(path, planes, tile=(64, 64), photometric="minisblack", ome=True, metadata=metadata)
    return path


@pytest.mark.parametrize(
    ("names", "colours", "order"),
    [
        (["C1", "C2", "C3"], [B, G, R], (2, 1, 0)),
        (["0", "1", "2"], [WHITE] * 3, (0, 1, 2)),
        (["Blue", "Green", "Red"], [WHITE] * 3, (2, 1, 0)),
        (["Blue", "Green", "Red"], [B, G, R], (2, 1, 0)),
        (["Blue channel", "channel:green", "Channel 2 - R"], [WHITE] * 3, (2, 1, 0)),
    ],
)
def test_channels_are_told_by_their_colours(tmp_path, names, colours, order):
    """Where their names say nothing; what is white like the others has no colour of its own."""
    with open_slide(channels(tmp_path / "a.ome.tif", names, colours, order)) as slide:
        assert np.array_equal(slide.read(Point(0, 0), Size(1024, 768), 0.25), PIXELS)


@pytest.mark.parametrize(
    ("names", "colours", "shown"),
    [
        (["C1", "C2", "C3"], [B, G, ORANGE], r"C1 \(#0000ff\), C2 \(#00ff00\), C3 \(#ffa500"),
        (["DAPI", "FITC", "TRITC"], [B, G, R], "DAPI"),
        (["Texas Red", "Green", "Blue"], [WHITE] * 3, "Texas Red"),
        (["Red", "Green", "Blue"], [B, G, R], "Red"),
    ],
)
def test_channels_of_other_colours_are_refused(tmp_path, names, colours, shown):
    """They are fluorescence, or contradict their names."""
    path = channels(tmp_path / "a.ome.tif", names, colours)

    with pytest.raises(SlideOpenError, match=rf"its channels are {shown}.*, not red, green and blue"):
        open_slide(path)


def test_channels_of_fluorescence_are_refused(tmp_path):
    """Three channels are not always red, green and blue."""
    metadata: dict[str, Any] = UM | {"axes": "CYX", "Channel": {"Name": ["DAPI", "FITC", "TRITC"]}}
    tifffile.imwrite(tmp_path / "a.ome.tif", np.moveaxis(PIXELS, 2, 0), tile=(64, 64), ome=True, metadata=metadata)

    with pytest.raises(SlideOpenError, match="a: its channels are DAPI, FITC, TRITC, not red, green and blue; convert"):
        open_slide(tmp_path / "a.ome.tif")


@pytest.mark.parametrize(("settings", "power"), [("", None), ('<ObjectiveSettings ID="Objective:1"/>', 40.0)])
def test_the_objective_of_several_is_the_one_that_was_set(tmp_path, settings, power):
    """An instrument lists all that it has, the one for overviews first; they contradict nothing."""
    path = ome(tmp_path / "a.ome.tif", ("slide", PIXELS, [], UM))
    objectives = "".join(f'<Objective ID="Objective:{i}" NominalMagnification="{x}"/>' for i, x in enumerate((5, 40)))
    with tifffile.TiffFile(path, mode="r+") as tiff:
        page = tiff.pages.first
        head, image, rest = page.description.partition("<Image ")
        tag, end, pixels = rest.partition(">")
        xml = f'{head}<Instrument ID="Instrument:0">{objectives}</Instrument>{image}{tag}{end}{settings}{pixels}'
        page.tags["ImageDescription"].overwrite(xml)

    with open_slide(path) as slide:
        assert (slide.mpp, slide.metadata.objective, slide.cautions) == (0.25, power, ())


def test_planar_ome_has_its_levels_and_its_mpp(tmp_path):
    """Colour planes, reduced sub-directories, µm in the XML only."""
    how: dict[str, Any] = {"photometric": "rgb", "planarconfig": "separate", "tile": (64, 64), "compression": "lzw"}
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as tiff:
        tiff.write(np.moveaxis(PIXELS, 2, 0), subifds=1, metadata=UM | {"axes": "SYX"}, **how)
        tiff.write(np.moveaxis(LEVELS[1], 2, 0), subfiletype=1, **how)

    with open_slide(tmp_path / "a.ome.tif") as slide:
        assert (slide.backend, sizes(slide), slide.mpp) == ("tiff", [(1024, 768), (512, 384)], 0.25)
        assert np.array_equal(slide.read(Point(0, 0), Size(512, 384), 0.5), LEVELS[1])


# Scale


@pytest.mark.parametrize("backend", BOTH)
@pytest.mark.parametrize(
    ("how", "more", "sources"),
    [
        ({"mag": "40", "mpp": "1.0"}, {}, "1 by Aperio metadata, 0.25 by magnification 40x"),
        ({"mag": "20", "mpp": "0.2500"}, {}, "0.25 by Aperio metadata, 0.5 by magnification 20x"),
        ({"mag": "5"}, {}, "0.25 by Aperio metadata, 2 by magnification 5x"),
        ({}, {"resolution": (2e4, 2e4), "resolutionunit": 3}, "0.25 by Aperio metadata, 0.5 by TIFF resolution tags"),
        ({"w": 4096, "h": 3072}, {}, "1 by the described size of 4096 x 3072 px, where it has 1024 x 768 px"),
    ],
)
def test_sources_that_contradict_each_other_are_refused(tmp_path, backend, how, more, sources):
    """By more than a quarter: both values and their sources are said; --mpp settles it, and the caution stays."""
    path = write(tmp_path / "a.svs", (PIXELS, aperio(**how), more))

    with pytest.raises(MppError, match=f"its µm per pixel contradict each other: .*{sources}.*--mpp"):
        open_slide(path, backend=backend)

    with open_slide(path, mpp=0.25, backend=backend) as slide:
        assert slide.mpp == 0.25
        assert "contradict each other: 0.25 by --mpp" in slide.cautions[0]
    report = inspect_slide(path, backend=backend)
    assert sum("contradict" in problem.found for problem in report.problems) == 1


def test_small_contradictions_are_cautions(tmp_path):
    """8 % between text and tags: the slide is read, and the reader told."""
    tags = {"resolution": (1e4 / 0.27, 1e4 / 0.27), "resolutionunit": 3}

    with open_slide(write(tmp_path / "a.svs", (PIXELS, aperio(), tags))) as slide:
        assert slide.mpp == 0.25
        assert "0.25 by Aperio metadata, 0.27 by TIFF resolution tags" in slide.cautions[0]


@pytest.mark.parametrize("mpp", ["0.2265", "0.2325", "0.2500", "0.2738", "0,2500"])
def test_what_scanners_call_40x_is_no_contradiction(tmp_path, mpp):
    """A magnification is a round number; a decimal comma is a decimal point."""
    with open_slide(write(tmp_path / "a.svs", (PIXELS, aperio(mpp=mpp), {}))) as slide:
        assert slide.mpp == float(mpp.replace(",", "."))
        assert slide.cautions == ()


@pytest.mark.parametrize(("um", "refused"), [(0.11, False), (0.66, True), (0.09, True)])
def test_an_objective_says_little_of_finer_pixels(tmp_path, um, refused):
    """At "40x" Zeiss, 3DHISTECH and Olympus have 0.11 to 0.14 µm: their OME-TIFF was refused. No camera has 0.66."""
    path = tmp_path / "a.ome.tif"
    write_slide(path, LEVELS[:1], SlideSpec(layout="ome", mpp=um))

    if refused:
        with pytest.raises(MppError, match=r"0\.25 by magnification 40x"):
            open_slide(path)
    else:
        with open_slide(path) as slide:
            assert (slide.mpp, slide.cautions) == (um, ())


@pytest.mark.parametrize("backend", BOTH)
def test_a_crop_is_told_from_a_reduction(tmp_path, backend):
    """Another shape than described: the scale stays, and the reader is told; a described part is no crop."""
    text = aperio().replace("1024x768 [0,0 1024x768]", "9000x8000 [77,99 1024x768]")
    with open_slide(write(tmp_path / "a.svs", (PIXELS, text, {})), backend=backend) as slide:
        assert slide.cautions == ()
    with open_slide(write(tmp_path / "b.svs", (PIXELS, aperio(4096, 1000), {})), backend=backend) as slide:
        assert "its description states 4096 x 1000 px, it has 1024 x 768" in slide.cautions[0]


@pytest.mark.parametrize(
    ("metadata", "mpp"),
    [
        ({"PhysicalSizeX": 0.25}, 0.25),
        ({"PhysicalSizeY": 0.25}, 0.25),
        ({"PhysicalSizeX": 250.0, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.25}, 0.25),
        ({"PhysicalSizeX": 2500.0, "PhysicalSizeXUnit": "Å", "PhysicalSizeY": 2.5e-7, "PhysicalSizeYUnit": "m"}, 0.25),
        ({"PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "micron", "PhysicalSizeY": 0.25}, 0.25),
        (
            {"PhysicalSizeX": 1.0, "PhysicalSizeXUnit": "pixel", "PhysicalSizeY": 1.0, "PhysicalSizeYUnit": "pixel"},
            None,
        ),
    ],
)
def test_um_per_pixel_in_ome_xml(tmp_path, metadata, mpp):
    """Every unit of length; one direction stands for both; a pixel is no length."""
    path = ome(tmp_path / "a.ome.tif", ("slide", PIXELS, [], metadata))

    if mpp is None:
        with pytest.raises(MppError, match="no µm per pixel"):
            open_slide(path)
    else:
        with open_slide(path) as slide:
            assert slide.mpp == pytest.approx(mpp)


def test_a_slide_larger_than_glass_is_refused(tmp_path):
    """9.9 µm where 0.25 belong: a metre of slide."""
    how = {"tile": (1024, 1024), "compression": "zlib", "compressionargs": {"level": 1}}
    path = write(tmp_path / "a.svs", (np.zeros((1024, 30_000, 3), np.uint8), aperio(30_000, 1024, "9.9", "1"), how))

    with pytest.raises(SlideError, match="make it 297 x 10 mm, larger than any slide; pass --mpp"):
        open_slide(path)


@pytest.mark.parametrize("value", [2, 3, 6])
def test_an_orientation_tag_is_said(tmp_path, value):
    """Both readers ignore it alike."""
    path = write(tmp_path / "a.svs", (PIXELS, aperio(), {"extratags": [(274, 3, 1, value, True)]}))

    with open_slide(path) as slide:
        assert "orientation tag" in slide.cautions[0]


@pytest.mark.parametrize(
    ("imaged_mm", "agrees"), [((1.024, 0.768), True), ((0.768, 1.024), True), ((0.512, 0.384), False), ((0, 0), True)]
)
def test_the_size_on_glass_that_dicom_states_binds(imaged_mm, agrees):
    """Its px spacing is contradicted by the size of what was imaged; turned by 90°, or unstated, it is not."""
    volume = dict(zip(("dicom.ImagedVolumeWidth", "dicom.ImagedVolumeHeight"), map(str, imaged_mm), strict=True))
    stated = stated_mpp(1.0, 1.0, "Dicom metadata")
    others, _ = _other_mpps(volume, "dicom", None, Size(1024, 768), stated)

    if agrees:
        assert settle_mpp("a", stated, None, others) == stated
        assert scale_contradictions(stated, stated, others) == ()
    else:
        with pytest.raises(MppError, match=r"1 by Dicom metadata, 0\.5 by DICOM's imaged volume; find out"):
            settle_mpp("a", stated, None, others)


def test_a_dicom_spacing_that_contradicts_the_imaged_volume_is_refused(tmp_path):
    """As OpenSlide gives both; where they agree, nothing is said."""
    sound, wrong = (write_dicom(tmp_path / str(mpp) / "0.dcm", PIXELS, mpp) for mpp in (0.25, 0.5))

    with open_slide(sound) as slide:
        assert (slide.mpp, slide.cautions) == (0.25, ())
    with pytest.raises(MppError, match=r"0\.5 by Dicom metadata, 0\.25 by DICOM's imaged volume"):
        open_slide(wrong)


def test_a_dicom_label_alone_lacks_its_levels(tmp_path):
    """Copying the same file again would not help."""
    path = write_dicom(tmp_path / "a" / "label.dcm", PIXELS[:64, :64], 0.25, kind="LABEL")

    with pytest.raises(SlideOpenError, match=r"its level files are missing: .*; copy all files of the series"):
        open_slide(path)


def test_dicom_of_several_focal_planes_is_told(tmp_path):
    """OpenSlide takes the first frame of each place, or the last."""
    with open_slide(write_dicom(tmp_path / "0.dcm", LEVELS[2], 0.25, planes=3)) as slide:
        assert slide.cautions[0].startswith("it has 36 frames for 12 tiles: focal planes or optical paths, of which")


def test_dicom_that_is_a_tiff_too_is_read_as_dicom(tmp_path):
    """As a TIFF, a file holds one level of the series, or its label."""
    path = write_dicom(tmp_path / "0.dcm", LEVELS[2], 0.25)
    path.write_bytes(b"II*\0" + path.read_bytes()[4:])

    with open_slide(path) as slide:
        assert (slide.vendor, slide.size_l0) == ("dicom", size(LEVELS[2]))


def test_dicom_without_its_finest_level_is_told(tmp_path):
    """A copy lacks the largest file of the series: tiles would be enlarged from what is left."""
    with open_slide(write_dicom(tmp_path / "1.dcm", LEVELS[2], 1.0, instance=2)) as slide:
        assert (slide.mpp, len(slide.cautions)) == (1.0, 1)
        assert "is not beside it; copy all files of the series into one folder" in slide.cautions[0]


def test_where_levels_are_compared_is_found_without_sorting_all_tiles(tmp_path):
    """Sorting 120 000 tiles by several keys, twice, was half of the time that a large slide took to open."""
    w, h = 390, 310
    counts = np.random.default_rng(0).integers(0, 20_000, w * h)
    y, x = (np.indices((h, w)).reshape(2, -1).T + 0.5).T / [[h], [w]]
    image = TiffImage(Size(256 * w, 256 * h), Size(256, 256), counts, counts, lambda *_: None, "JPEG", striped=False)
    (tmp_path / "a").touch()
    by_bytes = np.lexsort((np.hypot(x - 0.5, y - 0.5), -counts))
    stable = np.argsort(-counts, kind="stable")
    cell = (4 * (4 * y).astype(int) + 4 * x).astype(int)

    with closing(FileBytes(tmp_path / "a")) as file:
        spots = _Spots(image, file)
        assert [(x[i], y[i]) for i in by_bytes[:2]] == spots.spots()
        assert {stable[np.argmax(cell[stable] == i)] for i in range(16)} == {
            int(h * down) * w + int(w * across) for across, down in spots.cells()
        }
        ours = min(repeat(lambda: (spots.spots(), spots.cells()), number=1, repeat=3))
    assert ours < min(repeat(lambda: np.lexsort((counts, -counts)), number=1, repeat=3))
