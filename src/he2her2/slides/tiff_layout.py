"""Roles of a TIFF's images: levels, associated pictures; and its resolution."""

import logging
import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

import tifffile
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from he2her2.geometry import Size
from he2her2.slides.resolution import UNSTATED, StatedMpp, number_or_none, plausible_or_unstated
from he2her2.slides.tiff_header import FileBytes, LayoutRefusedError, TiffDamageError
from he2her2.slides.tiff_image import TiffImage, tiff_image
from he2her2.units import UM_PER_UNIT

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # we report in one line what it would log in many

_PARSE_ERRORS = (
    *(tifffile.TiffFileError, struct.error, ArithmeticError, AttributeError, AssertionError, LookupError),
    *(NotImplementedError, OSError, TypeError, ValueError),
)
_OTHERS = ("bif", "scn", "philips", "ndpi", "ndtiff", "qpi", "lsm", "stk", "fluoview", "vsi", "indica", "avs", "eer")
_RESOLUTION_UNITS = {2: "inch", 3: "cm"}
_REDUCED = 1
_ASPECT_TOLERANCE = 0.03


@dataclass(frozen=True, slots=True)
class TiffLayout:
    """The images of a TIFF by their role.

    Attributes:
        vendor: "aperio", "ome" or "generic-tiff".
        levels: The pyramid, finest first.
        associated: Other pictures by name.
        stated_mpp: Resolution that the file states.
        objective: Magnification of the objective, where stated.
    """

    vendor: str
    levels: tuple[TiffImage, ...]
    associated: dict[str, TiffImage]
    stated_mpp: StatedMpp
    objective: float | None


def read_layout(path: Path, file: FileBytes) -> TiffLayout:
    """Find levels, pictures and resolution of a TIFF whose directories were checked.

    Raises:
        LayoutRefusedError: It is not one of the layouts that this reader fully understands.
        TiffDamageError: It contradicts itself.
    """
    try:
        with tifffile.TiffFile(path, _multifile=False) as tiff:
            return _layout(tiff, file)
    except _PARSE_ERRORS as error:
        raise TiffDamageError(f"is no intact TIFF ({error})") from None


def _layout(tiff: tifffile.TiffFile, file: FileBytes) -> TiffLayout:
    if not tiff.pages:
        raise TiffDamageError("is a TIFF without images")
    first = tiff.pages.first
    other = next((name for name in _OTHERS if getattr(tiff, f"is_{name}", False)), None)
    if other is not None or str(first.software).startswith("MedScan"):
        raise LayoutRefusedError(f"it is of the kind {other or 'trestle'}")
    if first.description.startswith("Aperio"):
        return _aperio(tiff, file)
    if tiff.is_ome:
        return _ome(tiff, file)
    return _generic(tiff, file)


def _aperio(tiff: tifffile.TiffFile, file: FileBytes) -> TiffLayout:
    """Aperio SVS: tiled directories are levels; the second directory is the thumbnail, the others name themselves."""
    pages = [page.aspage() for page in tiff.pages]
    levels = _pyramid([tiff_image(page, file) for page in pages if page.is_tiled])
    names = {1: "thumbnail"}
    for i, page in enumerate(pages):
        second_line = page.description.partition("\n")[2].split()
        names.setdefault(i, second_line[0].lower() if second_line else f"image {i}")
    associated = _pictures(((names[i], page) for i, page in enumerate(pages) if not page.is_tiled), file)
    found = dict(re.findall(r"\|\s*(MPP|AppMag)\s*=\s*([\d.eE+-]+)", tiff.pages.first.description))
    mpp = number_or_none(found.get("MPP"))
    stated = UNSTATED if mpp is None else StatedMpp(mpp, mpp, "Aperio metadata")
    return TiffLayout("aperio", levels, associated, stated, number_or_none(found.get("AppMag")))


def _ome(tiff: tifffile.TiffFile, file: FileBytes) -> TiffLayout:
    """OME-TIFF: the first image is the slide, its resolutions are levels; other RGB images are pictures."""
    description = _ome_xml(tiff.pages.first.description)
    series = tiff.series
    if not series or series[0].axes != "YXS":
        raise LayoutRefusedError(f"its first image has the axes {series[0].axes if series else 'none'}, not YXS")
    levels = _pyramid([tiff_image(level.keyframe.aspage(), file, jfif_outranks=True) for level in series[0].levels])
    others = ((s.name or f"image {i}", s.keyframe.aspage()) for i, s in enumerate(series) if i and s.axes == "YXS")
    objective = next(
        (number_or_none(e.get("NominalMagnification")) for e in description.iterfind(".//{*}Objective")), None
    )
    return TiffLayout("ome", levels, _pictures(others, file), _ome_mpp(description), objective)


def _ome_xml(text: str) -> Element:
    try:
        root: Element = fromstring(text)
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise TiffDamageError(f"has OME metadata that cannot be read ({error})") from None
    return root


def _ome_mpp(description: Element) -> StatedMpp:
    pixels = description.find(".//{*}Pixels")
    if pixels is None:
        return UNSTATED
    sides = []
    for axis in ("X", "Y"):
        size = number_or_none(pixels.get(f"PhysicalSize{axis}"))
        unit = UM_PER_UNIT.get(pixels.get(f"PhysicalSize{axis}Unit", "µm").replace("\u03bc", "\u00b5"))
        if size is None or unit is None:
            return UNSTATED
        sides.append(size * unit)
    return StatedMpp(sides[0], sides[1], "OME-XML")


def _generic(tiff: tifffile.TiffFile, file: FileBytes) -> TiffLayout:
    """Any other TIFF: the first directory is the slide; reduced ones, also as its sub-directories, are levels."""
    first = tiff.pages.first
    level_0 = tiff_image(first, file)
    rest = [page.aspage() for page in (*(first.pages or ()), *tiff.pages[1:])]
    reduced = [page for page in rest if page.subfiletype & _REDUCED and page.is_tiled]
    levels = _pyramid([level_0, *(tiff_image(page, file) for page in reduced)])
    others = ((f"image {i}", page) for i, page in enumerate(rest, start=1) if page not in reduced)
    return TiffLayout("generic-tiff", levels, _pictures(others, file), _tag_mpp(first), None)


def _tag_mpp(page: tifffile.TiffPage) -> StatedMpp:
    """Resolution tags, which mostly speak of a screen or a printer and are then not believed."""
    unit = _RESOLUTION_UNITS.get(int(page.resolutionunit))
    sides = page.resolution
    if unit is None or not all(side > 0 for side in sides):
        return UNSTATED
    um = UM_PER_UNIT[unit]
    return plausible_or_unstated(um / sides[0], um / sides[1], "TIFF resolution tags")


def _pyramid(images: Sequence[TiffImage]) -> tuple[TiffImage, ...]:
    """The images as levels, finest first.

    Raises:
        LayoutRefusedError: There is none, or they are not reductions of the first.
    """
    if not images:
        raise LayoutRefusedError("it has no tiled image")
    size_0 = images[0].size
    for image in images[1:]:
        if not _is_reduction(size_0, image.size):
            raise LayoutRefusedError(f"its image of {image.size.w} x {image.size.h} px is no reduction of the first")
    return tuple(sorted(images, key=lambda image: -image.size.w))


def _is_reduction(size_l0: Size, size: Size) -> bool:
    """Smaller, and of the same shape but for rounding."""
    across, down = size_l0.w / size.w, size_l0.h / size.h
    slack = 1 / size.w + 1 / size.h + _ASPECT_TOLERANCE
    return min(across, down) >= 1 and (across > 1 or down > 1) and abs(across / down - 1) <= slack


def _pictures(pages: Iterable[tuple[str, tifffile.TiffPage]], file: FileBytes) -> dict[str, TiffImage]:
    """The pages that can be shown; a picture beside the slide is never a reason to refuse it."""
    pictures = {}
    for name, page in pages:
        try:
            pictures[name] = tiff_image(page, file)
        except LayoutRefusedError:
            continue
    return pictures
