"""Layouts of TIFF files, by the program that wrote them: the images' roles, and the resolution."""

import logging
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import tifffile

from he2her2.geometry import Size
from he2her2.slides.ome_xml import OmeImage, read_ome
from he2her2.slides.resolution import (
    UNSTATED,
    StatedMpp,
    is_same_scale,
    number_or_none,
    of_described_size,
    of_description,
    of_magnification,
    of_objective,
    plausible_or_unstated,
    stated_mpp,
)
from he2her2.slides.tiff_header import FileBytes, LayoutRefusedError, PixelKindError, TiffDamageError, escaped
from he2her2.slides.tiff_image import TiffImage
from he2her2.slides.tiff_roles import BESIDE, Candidate, by_size, largest, roles_of
from he2her2.units import UM_PER_UNIT

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # we report in one line what it would log in many

_PARSE_ERRORS = (
    *(tifffile.TiffFileError, struct.error, ArithmeticError, AttributeError, AssertionError, LookupError),
    *(NotImplementedError, OSError, TypeError, ValueError),
)
_OTHERS = ("bif", "scn", "philips", "ndtiff", "qpi", "lsm", "stk", "fluoview", "vsi", "indica", "avs", "eer")
_RESOLUTION_UNITS = {2: "inch", 3: "cm"}
_REDUCED, _MASK, _MACRO = 1, 4, 9
_APERIO_KINDS = {_REDUCED: "label", _MACRO: "macro"}
"""Kinds of Aperio's directories of strips; its thumbnail has none."""
_PAGE_NAME, _ORIENTATION = 285, 274
_ORIENTATIONS = {2: "mirrored", 3: "upside down", 4: "mirrored and upside down", 5: "mirrored and turned by 90°"}
_ORIENTATIONS |= {6: "turned by 90°", 7: "mirrored and turned by 90°", 8: "turned by 270°"}
_RGB, _RGBA = 3, 4
_LEAST_SHARE = 0.25  # of a grey image's area, of the slide that it may be a mask of
_MAX_IMAGES = 1000
_COLOUR_NAME = re.compile(
    r"\s*(?:(?:channel|component|ch|c)[\s:_-]*)?(?:\d+[\s:_-]+)?(red|green|blue|[rgb])(?:[\s:_-]*(?:channel|component|ch))?\s*"
)
_UNNAMED = re.compile(r"\s*((channel|c|ch|image|sample)?[\s:_-]*\d*([\s:_-]\d+)*)\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class TiffLayout:
    """The images of a TIFF by their role.

    Attributes:
        vendor: "aperio", "ome" or "generic-tiff".
        levels: The pyramid, finest first.
        associated: Other pictures by name.
        stated_mpp: Resolution that the file states.
        objective: Magnification of the objective, where stated.
        other_mpps: Resolutions that follow from its other statements.
        cautions: What is odd about it, a sentence each.
    """

    vendor: str
    levels: tuple[TiffImage, ...]
    associated: dict[str, TiffImage]
    stated_mpp: StatedMpp
    objective: float | None
    other_mpps: tuple[StatedMpp, ...] = ()
    cautions: tuple[str, ...] = ()


def read_layout(path: Path, file: FileBytes) -> TiffLayout:
    """Find levels, pictures and resolution of a TIFF whose directories were checked.

    Raises:
        LayoutRefusedError: It is not one of the layouts that this reader fully understands.
        TiffDamageError: It contradicts itself.
    """
    try:
        with tifffile.TiffFile(path, _multifile=False) as tiff:
            return _layout(tiff, file, path.name)
    except _PARSE_ERRORS as error:
        raise TiffDamageError(f"is no intact TIFF ({escaped(str(error))})") from None


def _layout(tiff: tifffile.TiffFile, file: FileBytes, name: str) -> TiffLayout:
    if not tiff.pages:
        raise TiffDamageError("is a TIFF without images")
    if len(tiff.pages) > _MAX_IMAGES:
        raise TiffDamageError(f"holds {len(tiff.pages)} images, more than any slide", "it is no slide; check the file")
    first = tiff.pages.first
    if min(first.imagewidth, first.imagelength) < 1:
        raise TiffDamageError("has a first directory without an image")
    other = next((name for name in _OTHERS if getattr(tiff, f"is_{name}", False)), None)
    if other is not None or str(first.software).startswith("MedScan"):
        raise LayoutRefusedError(f"it is of the kind {other or 'trestle'}")
    if first.description.startswith("Aperio"):
        return _aperio(tiff, file)
    if tiff.is_ome:
        return _ome(tiff, file, name)
    return _generic(tiff, file)


def _aperio(tiff: tifffile.TiffFile, file: FileBytes) -> TiffLayout:
    """Aperio SVS: tiled directories are levels; the others name themselves, or are the thumbnail."""
    pages = [page.aspage() for page in tiff.pages]
    candidates = [Candidate(_aperio_name(i, page), (page,), page.is_tiled, False) for i, page in enumerate(pages)]
    tiled = [candidate for candidate in candidates if candidate.is_level]
    if not tiled:
        raise LayoutRefusedError("it has no tiled image")
    offsets = {id(c): abs(_number_of(c.pages[0].description, "OffsetZ") or 0.0) for c in tiled}
    depth = min(offsets.values())
    slide = largest([candidate for candidate in tiled if offsets[id(candidate)] == depth])
    others = [c for c in candidates if c is not slide and (not c.is_level or c.is_beside or offsets[id(c)] == depth)]
    n_planes = 1 + sum(c.size == slide.size and offsets[id(c)] != depth for c in tiled)
    found = roles_of(slide, others, file)
    first = slide.pages[0].description
    mpp, magnification = _number_of(first, "MPP"), _number_of(first, "AppMag")
    stated = UNSTATED if mpp is None else StatedMpp(mpp, mpp, "Aperio metadata")
    others_mpp, cautions = of_description(first, slide.size, stated)
    return TiffLayout(
        "aperio",
        by_size(found.levels),
        found.associated,
        stated,
        magnification,
        (of_magnification(magnification), _tag_mpp(slide.pages[0]), *others_mpp),
        (*cautions, *_focal_planes(n_planes), *_oriented(slide.pages[0]), *found.cautions),
    )


def _aperio_name(i: int, page: tifffile.TiffPage) -> str:
    """Name of a directory as a picture."""
    second_line = page.description.partition("\n")[2].split()
    if page.is_tiled:
        head = page.description.partition("|")[0]
        beside = BESIDE.search(head)
        return beside[0].lower() if beside else "macro" if page.subfiletype == _MACRO else f"image {i}"
    named = second_line[0].lower() if second_line else ""
    if BESIDE.fullmatch(named):
        return named
    kind = _APERIO_KINDS.get(int(page.subfiletype))
    if i == 1 and (kind is None or "->" in page.description):  # "2220x2967 -> 574x768"
        return "thumbnail"
    return kind or named or f"image {i}"


def _number_of(description: str, key: str) -> float | None:
    """A number of Aperio's metadata, `|key = number`."""
    found = re.search(rf"\|\s*{key}\s*=\s*([-+\d.,eE]{{1,40}})", description, re.IGNORECASE)
    return number_or_none(found[1]) if found else None


def _focal_planes(n: int) -> Iterator[str]:
    if n > 1:
        yield f"it has {n} focal planes; only the one nearest to its plane 0 is read"


def _oriented(page: tifffile.TiffPage) -> Iterator[str]:
    tag = page.tags.get(_ORIENTATION)
    how = _ORIENTATIONS.get(int(tag.value)) if tag is not None and isinstance(tag.value, int) else None
    if how is not None:
        yield f"its orientation tag says that the picture is {how}; pixels are read as they are stored"


def _ome(tiff: tifffile.TiffFile, file: FileBytes, name: str) -> TiffLayout:
    """OME-TIFF: the largest image is the slide, its resolutions are levels; other RGB images are pictures."""
    pages = tiff.pages
    described = read_ome(pages.first.description, name, pages.first.samplesperpixel)
    images = [image for image in described if not image.elsewhere]
    found = {i: _ome_pages(pages, image) for i, image in enumerate(images)}
    candidates = {i: Candidate(images[i].name or f"image {i}", own, False, True) for i, own in found.items() if own}
    if not candidates:
        raise TiffDamageError("has OME metadata that name no image in it", "convert the slide again")
    index = _largest_of_ome(images, candidates)
    ome, slide = images[index], candidates[index]
    n_colours = slide.pages[0].samplesperpixel * len(slide.pages)
    n_claimed = ome.n_planes * max(1, ome.n_channels // ome.samples)
    if n_claimed > len(pages):
        found_ = f"has OME metadata that claim {n_claimed} planes, where the file has {len(pages)}"
        raise TiffDamageError(found_, "convert the slide again")
    if ome.samples == _RGBA and n_colours == _RGBA:
        raise LayoutRefusedError("it has 4 samples of 8 bits, not RGB of 8")
    if ome.n_channels != n_colours or n_colours != 3:
        raise PixelKindError(f"its largest image has {ome.n_channels} channels, not the 3 of RGB")
    if ome.samples == 1:
        slide = replace(
            slide, pages=tuple(slide.pages[i] for i in _colour_order(ome.channel_names, ome.channel_colours))
        )
    reduced = list(zip(*((sub.aspage() for sub in page.pages or ()) for page in slide.pages), strict=False))
    levels = [Candidate(f"level {i}", own, True, True) for i, own in enumerate(reduced, start=1)]
    others = [
        replace(candidate, is_scan=is_same_scale(images[i].stated_mpp, ome.stated_mpp))
        for i, candidate in candidates.items()
        if i != index
    ]
    result = roles_of(slide, [*levels, *others], file, ome=True)
    tags = _tag_mpp(slide.pages[0])
    stated = ome.stated_mpp if ome.stated_mpp.x is not None else tags
    other_mpps, cautions = _described_by_ome(ome, slide.size, stated)
    return TiffLayout(
        "ome",
        by_size(result.levels),
        result.associated,
        stated,
        ome.magnification,
        (of_objective(ome.magnification, stated), tags, *other_mpps),
        (*cautions, *_focal_planes(ome.n_planes), *_oriented(slide.pages[0]), *result.cautions),
    )


def _largest_of_ome(images: Sequence[OmeImage], candidates: Mapping[int, Candidate]) -> int:
    """Number of the largest image; where that is grey, as a mask of a slide is, of the largest in colour beside it."""
    by_candidate = {id(candidate): i for i, candidate in candidates.items()}
    first = largest(list(candidates.values()))
    coloured = [
        c for i, c in candidates.items() if images[i].n_channels == _RGB and c.area >= _LEAST_SHARE * first.area
    ]
    is_grey = images[by_candidate[id(first)]].n_channels == 1
    return by_candidate[id(largest(coloured) if is_grey and coloured else first)]


def _colour_order(names: Sequence[str], colours: Sequence[tuple[int, int, int] | None]) -> list[int]:
    """Positions of red, green and blue among three grey channels, by name or colour; without either, in this order.

    Raises:
        PixelKindError: They are something else, as those of fluorescence.

    Example:
        >>> _colour_order(["Blue", "Green", "Red"], [None] * 3), _colour_order(["", "", ""], [None] * 3)
        ([2, 1, 0], [0, 1, 2])
    """
    by_name, by_colour = tuple(map(_initial, names)), tuple(map(_primary, colours))
    unnamed = all(_UNNAMED.fullmatch(name) for name in names)
    found = {initials for initials in (by_name, by_colour) if sorted(initials) == ["b", "g", "r"]}
    if unnamed and len(set(colours)) == 1:
        found = {("r", "g", "b")}
    if len(found) == 1 and (unnamed or by_name in found):
        (initials,) = found
        return [initials.index(colour) for colour in "rgb"]
    shown = (
        f"{escaped(name) or 'unnamed'}{'' if colour is None else f' (#{bytes(colour).hex()})'}"
        for name, colour in zip(names, colours, strict=True)
    )
    raise PixelKindError(f"its channels are {', '.join(shown)}, not red, green and blue")


def _primary(colour: tuple[int, int, int] | None) -> str:
    """r, g or b for a colour of which nothing else is in it."""
    lit = [name for name, value in zip("rgb", colour or (), strict=False) if value]
    return lit[0] if len(lit) == 1 else ""


def _initial(name: str) -> str:
    """r, g or b for the name of a colour, or of its channel."""
    found = _COLOUR_NAME.fullmatch(name.lower())
    return found[1][:1] if found else ""


def _ome_pages(pages: tifffile.TiffPages, image: OmeImage) -> tuple[tifffile.TiffPage, ...]:
    """Directories of an image: one, or those of its first three channels; none where they are not in the file."""
    n = len(pages)
    if not image.directories or max(image.directories) >= n:
        return ()
    return tuple(pages[i].aspage() for i in image.directories)


def _described_by_ome(ome: OmeImage, real: Size, stated: StatedMpp) -> tuple[tuple[StatedMpp, ...], tuple[str, ...]]:
    if ome.size == real:
        return (), ()
    implied = of_described_size(ome.size, real, stated)
    if implied is None:
        found = f"has OME metadata that claim {ome.size.w} x {ome.size.h} px for an image of {real.w} x {real.h}"
        raise TiffDamageError(found, "convert the slide again")
    return (implied,), ()


def _generic(tiff: tifffile.TiffFile, file: FileBytes) -> TiffLayout:
    """Any other TIFF: the largest image is the slide; reductions of it, also as its sub-directories, are levels."""
    tops = [
        Candidate(_generic_name(i, page), (page,), bool(page.subfiletype & _REDUCED) and page.is_tiled, page.is_tiled)
        for i, page in enumerate(page.aspage() for page in tiff.pages)
        if not page.subfiletype & _MASK
    ]
    slide = largest(tops)
    page = slide.pages[0]
    subs = [sub.aspage() for sub in page.pages or ()]
    inner = [
        Candidate(f"image {len(tops) + i}", (sub,), bool(sub.subfiletype & _REDUCED) and sub.is_tiled, sub.is_tiled)
        for i, sub in enumerate(subs)
    ]
    found = roles_of(slide, [*inner, *(top for top in tops if top is not slide)], file)
    mpp, magnification = _number_of(page.description, "MPP"), _number_of(page.description, "AppMag")
    tags = _tag_mpp(page)
    stated = tags if mpp is None else stated_mpp(mpp, mpp, "its description")
    other_mpps, cautions = of_description(page.description, slide.size, stated)
    return TiffLayout(
        "generic-tiff",
        by_size(found.levels),
        found.associated,
        stated,
        magnification,
        (of_magnification(magnification), tags, *other_mpps),
        (*cautions, *_oriented(page), *found.cautions),
    )


def _generic_name(i: int, page: tifffile.TiffPage) -> str:
    """Name that a directory gives itself, if it is something beside the slide, else its number."""
    tag = page.tags.get(_PAGE_NAME)
    names = (str(tag.value) if tag is not None else "", page.description.partition("|")[0])
    beside = next((found for text in names if len(text) <= 200 and (found := BESIDE.search(text))), None)
    if beside:
        return beside[0].lower()
    return "macro" if page.subfiletype == _MACRO else f"image {i}"


def _tag_mpp(page: tifffile.TiffPage) -> StatedMpp:
    """Resolution tags, which mostly speak of a screen or a printer and are then not believed."""
    unit = _RESOLUTION_UNITS.get(int(page.resolutionunit)) or _imagej_unit(page.description)
    x, y = (_resolution(page, code) for code in (282, 283))
    um = UM_PER_UNIT.get(unit)
    if um is None or (x is None and y is None):
        return UNSTATED
    return plausible_or_unstated(x and um / x, y and um / y, "TIFF resolution tags")


def _imagej_unit(description: str) -> str:
    """The unit of the resolution tags that ImageJ writes into its description, where the tag for it has none."""
    found = re.search(r"^unit=(.{1,20})$", description, re.MULTILINE) if description.startswith("ImageJ=") else None
    if found is None:
        return ""
    unit = found[1].strip().replace("\\u00B5", "µ").casefold()
    return "um" if unit in ("micron", "microns", "μm") else unit


def _resolution(page: tifffile.TiffPage, code: int) -> float | None:
    tag = page.tags.get(code)
    if tag is None:
        return None
    upper, lower = tag.value if isinstance(tag.value, tuple) else (tag.value, 1)
    return upper / lower if upper > 0 and lower > 0 else None
