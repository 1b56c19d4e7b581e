"""Opening of slide files: `open_slide` and its choice of a reader."""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from he2her2.errors import SlideOpenError
from he2her2.slides.base import BaseSlide
from he2her2.slides.slide import slide_id_of
from he2her2.slides.tiff_header import (
    FileBytes,
    LayoutRefusedError,
    PixelKindError,
    TiffDamageError,
    is_tiff,
    largest_image,
)

if TYPE_CHECKING:
    from he2her2.slides.backend_openslide import OpenSlideSlide

Backend: TypeAlias = Literal["auto", "tiff", "openslide"]


_BY_VIPS = "convert it to a tiled RGB TIFF (vips tiffsave --tile --pyramid), and give its scale by --mpp"
_NO_SLIDES: Mapping[bytes, tuple[str, str]] = {
    b"version https://git-lfs": ("a pointer of Git LFS, which stands for it", "fetch it with git lfs pull"),
    b"<!doctype html": ("a web page", "download it again, and look at the page: it may want a login"),
    b"<html": ("a web page", "download it again, and look at the page: it may want a login"),
    b"pk\x03\x04": ("a ZIP archive", "unpack it"),
    b"\x1f\x8b": ("a gzip archive", "unpack it"),
    b"\xff\xd8\xff": ("a JPEG picture", _BY_VIPS),
    b"\x89png\r\n": ("a PNG picture", _BY_VIPS),
}
"""Beginnings, in small letters, of files that often lie where a slide should be."""

_BY_BIO_FORMATS = "convert it to a pyramidal OME-TIFF with QuPath or Bio-Formats (bfconvert)"
_BY_SCANNER = "export it as SVS, TIFF or DICOM with the program of the scanner"
_UNREAD: Mapping[str, tuple[str, str]] = {
    ".ets": ("a part of an Olympus slide (VSI)", _BY_BIO_FORMATS),
    ".isyntax": ("a Philips slide (iSyntax)", "export it as TIFF or DICOM with Philips' program"),
    ".kfb": ("a KFBio slide (KFB)", _BY_SCANNER),
    ".lif": ("a Leica microscope's file (LIF)", _BY_BIO_FORMATS),
    ".nd2": ("a Nikon microscope's file (ND2)", _BY_BIO_FORMATS),
    ".ndpis": ("a list of Hamamatsu slides of one specimen (NDPIS)", "give the NDPI files that it names"),
    ".sdpc": ("a Sqray slide (SDPC)", _BY_SCANNER),
    ".tmap": ("a UNIC slide (TMAP)", _BY_SCANNER),
    ".vsi": ("an Olympus slide (VSI), which holds label and overview; its pixels lie in a folder", _BY_BIO_FORMATS),
    ".zvi": ("a Zeiss microscope's file (ZVI)", _BY_BIO_FORMATS),
}
"""Endings of formats that no reader knows."""

_CANNOT_OPEN: Mapping[str, tuple[str, str]] = {
    "No pyramid levels found": (
        "its level files are missing: there is a label or an overview, or a copy that was cut off",
        "copy all files of the series into one folder",
    ),
    "TotalPixelMatrixFocalPlanes": (
        "it has several focal planes, which OpenSlide does not read in DICOM",
        "export one focal plane",
    ),
    "Unsupported transfer syntax": (
        "its DICOM frames are compressed in a way that OpenSlide does not read",
        "export it with JPEG or JPEG 2000 frames",
    ),
    "Unrecognized subblock dimension": (
        "its CZI has focal planes, times or views, which OpenSlide does not read",
        _BY_BIO_FORMATS,
    ),
    "No such file": ("a file that belongs to it is missing", "copy all of its files again, with their names"),
}
"""Words of OpenSlide's errors, with what they mean and a remedy."""

_MRXS = ".mrxs"
_PREAMBLE = 128
_OPAQUE = 255
_MAX_TRANSLUCENT = 0.5


def open_slide(path: Path | str, *, mpp: float | None = None, backend: Backend = "auto") -> BaseSlide:
    """Open a whole-slide image.

    Args:
        path: The file.
        mpp: µm per level-0 px; outranks that of the file.
        backend: "tiff" is the fast reader of the tiled TIFF family, "openslide" knows every vendor's format; "auto"
            takes the fast one for files that it fully understands.

    Returns:
        The open slide; close it, or use it in a `with` block.

    Raises:
        SlideOpenError: The file is missing, of an unknown format, cut short or contradicts itself.
        MppError: Its µm per pixel are unknown or impossible.
    """
    path = Path(path)
    head = _read_head(path)
    if backend == "openslide":
        return _open_with_openslide(path, mpp, head, refusal="")
    if backend not in ("auto", "tiff"):
        raise ValueError(f"backend must be auto, tiff or openslide, got {backend}")
    if _is_tiff(path, head):
        return _open_tiff(path, mpp, head, alone=backend == "tiff")
    if backend == "tiff":
        raise SlideOpenError(
            slide_id_of(path), _what_it_is(head, "no TIFF"), "open it with the backend auto or openslide"
        )
    return _open_with_openslide(path, mpp, head, refusal="")


def why_not_the_tiff_reader(path: Path) -> str:
    """Return the reason why "auto" leaves a file to OpenSlide."""
    from he2her2.slides.backend_tiff import TiffSlide  # noqa: PLC0415 - tifffile and the codecs load here

    if not _is_tiff(path, _read_head(path)):
        return "it is no TIFF"
    try:
        TiffSlide(path, mpp=1.0).close()
    except (LayoutRefusedError, TiffDamageError) as error:
        return str(error)
    return "it was asked for"


def _is_tiff(path: Path, head: bytes) -> bool:
    """True for TIFF; what is DICOM as well, a level, label or overview of a series, is TIFF by its ending only."""
    is_dicom = head[_PREAMBLE : _PREAMBLE + 4] == b"DICM" and path.suffix.lower() not in (".tif", ".tiff")
    return is_tiff(head) and not is_dicom


def _read_head(path: Path) -> bytes:
    """Read the file's first bytes, or raise with the reason why there are none."""
    if not path.exists():
        raise _missing(path)
    if path.is_dir():
        raise SlideOpenError(path.name or str(path), f"{path} is a folder", "name a slide file in it")
    if path.suffix.lower() == _MRXS:
        _require_mrxs_folder(path)
    if not path.is_file():
        raise SlideOpenError(slide_id_of(path), f"{path} is no ordinary file", "name a slide file")
    if not str(path).isprintable():
        what = f"the name of its folder {str(path.parent)!a}" if path.name.isprintable() else "its name"
        found = f"{what} cannot be written in a result"
        raise SlideOpenError(ascii(path.name), found, "rename it: letters, digits, - and _")
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise SlideOpenError(slide_id_of(path), f"cannot be read ({error.strerror})", "check its permissions") from None
    if not head and path.suffix != _MRXS:
        raise SlideOpenError(slide_id_of(path), "the file is empty", "copy it again")
    _refuse_what_stands_for_a_slide(path, head)
    return head


def _require_mrxs_folder(path: Path) -> None:
    folder = path.with_suffix("")
    if path.suffix != _MRXS:
        found = f"its ending is {path.suffix}, which OpenSlide reads in small letters only"
        raise SlideOpenError(slide_id_of(path), found, f"rename it to {path.stem}{_MRXS}")
    if not folder.is_dir():
        found = f"its folder {path.stem}, which holds the pixels, is not beside it"
        raise SlideOpenError(slide_id_of(path), found, "copy the folder, too")
    if not (folder / "Slidedat.ini").is_file():
        raise SlideOpenError(
            slide_id_of(path), f"its folder {path.stem} holds no Slidedat.ini", "copy the folder again"
        )


def _missing(path: Path) -> SlideOpenError:
    if path.is_symlink():
        found = f"{path} is a link to {path.readlink()}, which is not there"
        return SlideOpenError(slide_id_of(path), found, "copy or mount what it leads to")
    return SlideOpenError(slide_id_of(path) or str(path), f"no file {path}", "check the path")


def _refuse_what_stands_for_a_slide(path: Path, head: bytes) -> None:
    if path.suffix.lower() in _UNREAD:
        found, remedy = _UNREAD[path.suffix.lower()]
        raise SlideOpenError(slide_id_of(path), f"is not read: it is {found}", remedy)
    beginning = head.lstrip().lower()
    for known, (found, remedy) in _NO_SLIDES.items():
        if beginning.startswith(known) and path.suffix != _MRXS:  # a small picture, or empty
            raise SlideOpenError(slide_id_of(path), f"is not a slide: it is {found}", remedy)


def _open_tiff(path: Path, mpp: float | None, head: bytes, *, alone: bool) -> BaseSlide:
    from he2her2.slides.backend_tiff import TiffSlide  # noqa: PLC0415 - tifffile and the codecs load here

    try:
        return TiffSlide(path, mpp)
    except TiffDamageError as error:
        raise SlideOpenError(slide_id_of(path), error.reason, error.remedy) from None
    except PixelKindError as error:
        refusal = f"the TIFF reader does not understand it: {error}" if alone else str(error)
        raise SlideOpenError(slide_id_of(path), refusal, "convert it to a tiled RGB TIFF of 8 bits a colour") from None
    except LayoutRefusedError as error:
        if alone:
            reason = f"the TIFF reader does not understand it: {error}"
            raise SlideOpenError(slide_id_of(path), reason, "open it with the backend auto or openslide") from None
        refusal = str(error)
    return _open_with_openslide(path, mpp, head, refusal=refusal)


def _open_with_openslide(path: Path, mpp: float | None, head: bytes, *, refusal: str) -> BaseSlide:
    from openslide import OpenSlideError, OpenSlideUnsupportedFormatError  # noqa: PLC0415 - loads 20 MB

    from he2her2.slides.backend_openslide import OpenSlideSlide  # noqa: PLC0415

    try:
        slide = OpenSlideSlide(path, mpp)
    except OpenSlideUnsupportedFormatError:
        if refusal:
            reason = f"is a TIFF that neither reader understands: {refusal}"
            raise SlideOpenError(slide_id_of(path), reason, "convert it to a tiled RGB TIFF") from None
        if is_tiff(head):
            reason = "is a TIFF of a kind that OpenSlide does not know"
            raise SlideOpenError(slide_id_of(path), reason, "open it with the backend auto") from None
        reason = _what_it_is(head, "is of a format that neither reader knows")
        raise SlideOpenError(slide_id_of(path), reason, "give a slide (SVS, TIFF, NDPI, MRXS, DICOM, ...)") from None
    except OpenSlideError as error:
        for words, (reason, remedy) in _CANNOT_OPEN.items():
            if words in str(error):
                raise SlideOpenError(slide_id_of(path), f"{reason} ({error})", remedy) from None
        raise SlideOpenError(
            slide_id_of(path),
            f"OpenSlide cannot open it ({error})",
            f"{'' if refusal else 'copy the file again, or '}convert it to a tiled RGB TIFF",
        ) from None
    if is_tiff(head):
        try:
            _require_largest(slide)
            _require_opaque(slide)
        except SlideOpenError:
            slide.close()
            raise
    return slide


def _require_largest(slide: "OpenSlideSlide") -> None:
    """Raise if OpenSlide takes a small first image of a plain TIFF, such as a macro, for the slide."""
    if slide.vendor != "generic-tiff":
        return
    with closing(FileBytes(slide.path)) as file:
        try:
            largest = largest_image(file)
        except TiffDamageError:
            return  # OpenSlide reads what is there
    w, h = slide.size_l0
    if largest.w * largest.h > w * h:
        found = f"its first image, which OpenSlide takes for the slide, has {w} x {h} px, and another {largest.w} x"
        remedy = "convert it to a tiled RGB TIFF, or put the slide first"
        raise SlideOpenError(slide.slide_id, f"{found} {largest.h}", remedy)


def _require_opaque(slide: "OpenSlideSlide") -> None:
    """Raise if a fourth sample that is no opacity would hide the slide."""
    alpha = slide.opacity()
    found = ""
    if alpha.size and not alpha.any():
        found = "its pixels are all transparent: their fourth sample is 0"
    elif alpha.size and ((alpha > 0) & (alpha < _OPAQUE)).mean() > _MAX_TRANSLUCENT:
        found = "its pixels are half transparent: their fourth sample is no opacity"
    if found:
        raise SlideOpenError(slide.slide_id, found, "convert it to RGB of 3 samples")


def _what_it_is(head: bytes, otherwise: str) -> str:
    """Recognise text, under whatever name."""
    is_text = all(byte in b"\t\n\r\f" or 32 <= byte < 127 for byte in head)
    return "is not a slide: it is text" if is_text else otherwise
