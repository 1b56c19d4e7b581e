"""Reading of an annotation file; its format is recognised by its content.

Most programs count pixels of the full-resolution picture from its top-left corner, as level 0 does here. QuPath crops
some MRXS slides to their scanned bounds, and counts from their corner; NDP.view counts nm from the centre of the glass
slide.
"""

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from he2her2.errors import AnnotationError, few_of
from he2her2.geometry import Mask
from he2her2.preprocessing.annotations.classes import NO_CLASS, ClassUse, class_of, in_short, in_words, uses_of_classes
from he2her2.preprocessing.annotations.geojson import FormatError, drawn_in_geojson
from he2her2.preprocessing.annotations.masks import DrawnRegions, PaintedMask, Region
from he2her2.preprocessing.annotations.outlines import Drawn, OutlineError, shape_of
from he2her2.preprocessing.annotations.xml_formats import drawn_in_xml

Annotation: TypeAlias = DrawnRegions | PaintedMask
"""What was annotated on a slide; `mask` rasters its tumour."""

_KNOWN = "give a QuPath GeoJSON, an ASAP, ImageScope, HALO or Sedeen XML, an NDPA, or a PNG mask"
_PNG = b"\x89PNG"
_OF_OTHER_KINDS = {
    b"PK\3\4": "a ZIP archive; unpack it",
    b"\x1f\x8b": "a gzip archive; unpack it",
    b"II": "a TIFF; save the mask as PNG",
    b"MM\0": "a TIFF; save the mask as PNG",
    b"\xff\xd8": "a JPEG, whose values are not those that were painted; save the mask as PNG",
    bytes(128) + b"DICM": "a DICOM file; export the annotations as GeoJSON, or the mask as PNG",
}
"""Beginnings of files that programs write in place of those that are read."""

_MAX_BYTES = 256 << 20  # read as JSON it takes ten times as much
_MOST_LOOKED_AT = 4 << 20  # pixels of a picture whose values are counted
_ONE_VALUE = 0.9  # of the painted pixels
_OTHER_COLOURS = 0.01  # of them, beside the shades of the one
_SHADES = 32  # least value of which an edge has shades, and largest difference of a shade from its colour
_SHOWN = 5


def read_annotation(file: Path, chosen: Sequence[str] = (), slide: Path | None = None) -> Annotation:
    """Read an annotation file and decide what each of its classes is used for.

    Points, lines and text are skipped, and so are objects that a program found (QuPath's detections, cells and tiles).
    A shape that encloses nothing or has unreadable points is skipped with a warning.

    Args:
        file: QuPath GeoJSON, XML of ASAP, ImageScope, HALO or Sedeen, NDPA, or a PNG that covers the whole slide at
            any resolution (0 is outside, all else is tumour; transparency does not count). Of a PNG of several values,
            such as a map of classes, the tumour must be chosen.
        chosen: Classes that are tumour, or values of a PNG; the others are not. By the words of their names if empty,
            see `classes`; of a PNG, if no value is among them, all that is not 0.
        slide: The slide's file, to find its image in a session of several.

    Raises:
        AnnotationError: It cannot be read, is none of these, or holds no usable region of tumour.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(_MAX_BYTES + 1)  # a device has no size, and no end
    except OSError as error:
        raise AnnotationError(f"{file}: cannot be read ({error.strerror}); {_KNOWN}") from None
    if len(content) > _MAX_BYTES:
        raise AnnotationError(f"{file}: has more than {_MAX_BYTES >> 20} MB; export annotations only, not detections")
    if content.startswith(_PNG):
        wanted = [int(text) for text in chosen if text.isascii() and text.isdigit()]
        picture = _picture(file, as_indices=bool(wanted))
        return PaintedMask(_inside(picture.pixels, picture.palette, wanted, file), file, picture.px_l0)
    try:
        return _regions(content, chosen, slide)
    except FormatError as error:
        remedy = "" if ";" in str(error) else f"; {_KNOWN}"
        raise AnnotationError(f"{file}: {error}{remedy}") from None


def _regions(content: bytes, chosen: Sequence[str], slide: Path | None) -> DrawnRegions:
    for beginning, kind in _OF_OTHER_KINDS.items():
        if content.startswith(beginning):
            raise FormatError(f"is {kind}")
    is_xml = content[:200].replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n").startswith(b"<")
    drawn, cautions, origin, mpp = (
        drawn_in_xml(content, slide) if is_xml else (list(drawn_in_geojson(content)), [], "bounds", None)
    )
    if not drawn:
        raise FormatError("no closed region in it; draw polygons or rectangles around the tumour")
    names = [class_of(one.group, one.own, chosen) for one in drawn]
    uses = uses_of_classes(names, chosen)
    regions: list[Region] = []
    faults: list[str] = []
    for one, name in zip(drawn, names, strict=True):
        try:
            regions.append(Region(shape_of(one), name, uses[name], one.is_hole))
        except OutlineError as error:
            faults.append(f"{_label(one, name)} {error}")
    if not any(region.use is ClassUse.TUMOUR and not region.is_hole for region in regions):
        raise FormatError(_why_no_tumour(names, uses, chosen, faults))
    skipped = [f"skipped {len(faults)} of {len(drawn)} annotated shapes: {few_of(faults)}"] if faults else []
    return DrawnRegions(tuple(regions), origin, (*cautions, *skipped), mpp)


def _why_no_tumour(
    names: Sequence[str], uses: dict[str, ClassUse], chosen: Sequence[str], faults: Sequence[str]
) -> str:
    if any(use is ClassUse.TUMOUR for use in uses.values()) and faults:
        return f"no usable region of tumour: {few_of(faults)}; delete or redraw it"
    found = in_words(Counter(names))
    if chosen:
        return f"none of its classes is {' or '.join(chosen)}; it has {found}, choose with --annotation-class NAME"
    return f"none of its classes is tumour by name: {found}; choose with --annotation-class NAME"


def _label(drawn: Drawn, name: str) -> str:
    """A region in a message."""
    own = next((one for one in drawn.own if one), "")
    shown = in_short(name if name != NO_CLASS else own)
    return f"region '{shown}'" if shown else "a region without a name"


def _inside(pixels: NDArray[Any], palette: NDArray[np.uint8] | None, wanted: Sequence[int], file: Path) -> Mask:
    """(h, w) pixels of the chosen values; where none is chosen those that are not 0, which must be of one value.

    An edge may be smooth: values between 0 and the one are let pass in up to a tenth of the pixels. A mask without any
    paint is of a slide without tumour, whatever is chosen.

    Raises:
        AnnotationError: It has none of the chosen values, or several and none is chosen.
    """
    if wanted and pixels.ndim == 2:
        inside = np.isin(pixels, wanted)
        if inside.any() or not pixels.any():
            return inside
    step = math.ceil(math.sqrt(pixels.shape[0] * pixels.shape[1] / _MOST_LOOKED_AT))
    seen = pixels[::step, ::step]
    if seen.ndim == 3:
        seen = seen.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    values, counts = np.unique(seen[seen != 0], return_counts=True)
    if pixels.ndim == 3:
        colours = values[:, None] >> np.array([16, 8, 0]) & 255
    else:
        colours = values[:, None] if palette is None else palette[values]
    if len(values) and (wanted or not _is_one_class(colours, counts)):
        shares = sorted(zip(values.tolist(), (counts / counts.sum()).tolist(), strict=True), key=lambda one: -one[1])
        shown = few_of([f"{value if pixels.ndim == 2 else f'#{value:06x}'} ({n:.0%})" for value, n in shares], _SHOWN)
        remedy = "choose with --annotation-class VALUE" if pixels.ndim == 2 else "give a mask of 0 and one value"
        fault = f"has no pixel of value {' or '.join(map(str, wanted))}" if wanted else "is no mask of one class"
        raise AnnotationError(
            f"{file}: {fault}, its pixels have {len(values)} value{'s' * (len(values) > 1)} beside 0: {shown}; {remedy}"
        )
    return np.asarray(pixels != 0) if pixels.ndim == 2 else np.asarray((pixels != 0).any(axis=2))


def _is_one_class(colours: NDArray[Any], counts: NDArray[np.intp]) -> bool:
    """True where nearly all painted pixels have one of the (k, c) colours, and the others are the shades of its edge.

    Numbers of classes are too small to have shades, and the colours of other classes are no darker shades of the one.
    """
    main = colours[counts.argmax()].astype(np.float64)
    darkened = main * np.minimum(1, colours.max(axis=1, keepdims=True) / main.max())
    other = (np.abs(colours - darkened) > _SHADES).any(axis=1)
    alone = len(colours) == 1
    return alone or bool(
        main.max() >= _SHADES
        and counts.max() >= _ONE_VALUE * counts.sum()
        and counts[other].sum() <= _OTHER_COLOURS * counts.sum()
    )


class _Picture(NamedTuple):
    """A picture as it is read.

    Attributes:
        pixels: (h, w) or (h, w, 3); of a palette, where white may be 0 and black 1, those of `_painted`.
        palette: (257, 3) its colours, of `_painted`; None without.
        px_l0: Level-0 px per px that it states, as masks of ours do.
    """

    pixels: NDArray[Any]
    palette: NDArray[np.uint8] | None
    px_l0: float | None


def _picture(file: Path, *, as_indices: bool) -> _Picture:
    """Read a picture; see `_painted` for `as_indices`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file) as picture:
                px_l0 = _scale(str(picture.info.get("px_l0", "")))
                if picture.mode == "P":
                    return _Picture(*_painted(picture, as_indices=as_indices), px_l0)
                if picture.mode in ("LA", "RGBA", "PA"):
                    return _Picture(_shown(np.asarray(picture.convert("RGBA"))), None, px_l0)
                return _Picture(np.asarray(picture), None, px_l0)
    except Image.DecompressionBombError:
        raise AnnotationError(f"{file}: is too large for a mask; make it 8 µm per px or so") from None
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise AnnotationError(f"{file}: cannot be read as a picture ({error}); export the mask again") from None


def _shown(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(h, w, 3) colours, black where nothing is seen of them, unless nothing is seen at all."""
    seen = rgba[..., 3:] > 0
    return np.where(seen | ~seen.any(), rgba[..., :3], 0).astype(np.uint8)


def _scale(text: str) -> float | None:
    """A scale above 0; None for anything else."""
    try:
        found = float(text)
    except ValueError:
        return None
    return found if 0 < found < math.inf else None


def _painted(picture: Image.Image, *, as_indices: bool) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """(h, w) indices of a palette and its (257, 3) colours, 256 in place of 0.

    Indices of black and of no colour are 0, unless indices count.
    """
    rgba, indices = np.asarray(picture.convert("RGBA")), np.asarray(picture).astype(np.uint16)
    painted = rgba[..., :3].any(axis=2) & (rgba[..., 3] > 0)
    values = np.where(painted, np.where(indices == 0, 256, indices), indices if as_indices else 0)
    palette, own = np.zeros((257, 3), np.uint8), np.array(picture.getpalette() or [0, 0, 0]).reshape(-1, 3)
    palette[: len(own)], palette[256] = own, own[0]
    return values.astype(np.uint16), palette
