"""Where a manifest's annotations lie on their slide: polygons, or a PNG mask of the whole slide."""

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from he2her2.errors import AnnotationError
from he2her2.geometry import Mask, Size, l0_from_mask
from he2her2.preprocessing.annotations import in_slide_frame, read_annotations, regions_mask
from he2her2.slides import Slide

_PNG = b"\x89PNG"
_SHAPE_TOLERANCE = 0.02


def region_mask(slide: Slide, file: Path, size: Size, px_l0: float) -> Mask:
    """Which pixels of a mask of the whole slide have their centre in what was annotated.

    Args:
        slide: The slide.
        file: Its annotations: Sedeen, QuPath or ASAP polygons, or a PNG that covers the whole slide at any resolution
            (non-zero is inside).
        size: Width and height of the mask.
        px_l0: Level-0 px per mask px.

    Returns:
        (h, w)

    Raises:
        AnnotationError: The file cannot be read, or is no picture of this slide.
    """
    if not _is_png(file):
        regions = in_slide_frame(read_annotations(file), file, slide.bounds_origin_l0)
        return regions_mask(regions, size, px_l0)
    drawn = read_mask(file)
    _check_shape(file, drawn, slide.size_l0)
    rows, y_inside = _nearest(size.h, px_l0, slide.size_l0.h, drawn.shape[0])
    columns, x_inside = _nearest(size.w, px_l0, slide.size_l0.w, drawn.shape[1])
    return np.asarray(drawn[np.ix_(rows, columns)] & y_inside[:, None] & x_inside[None, :])


def read_mask(file: Path) -> Mask:
    """(h, w) where a picture is not 0 (in any colour; transparency does not count).

    Raises:
        AnnotationError: It cannot be read, or is too large to be a mask.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file) as picture:
                pixels = np.asarray(picture.convert("RGB") if picture.mode in ("LA", "RGBA", "PA") else picture)
    except Image.DecompressionBombError:
        raise AnnotationError(f"{file}: is too large for a mask; make it 8 µm per px or so") from None
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise AnnotationError(f"{file}: cannot be read as a picture ({error}); export the mask again") from None
    return np.asarray(pixels != 0) if pixels.ndim == 2 else np.asarray((pixels != 0).any(axis=2))


def _is_png(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            return stream.read(len(_PNG)) == _PNG
    except OSError as error:
        raise AnnotationError(f"{file}: cannot be read ({error.strerror}); check the manifest's annotations") from None


def _check_shape(file: Path, drawn: Mask, size_l0: Size) -> None:
    """Whether a mask can be one of the whole slide: as wide for its height, but for a rounded-up last pixel."""
    height, width = drawn.shape
    across, down = size_l0.w / width, size_l0.h / height  # level-0 px per px of the picture
    slack = _SHAPE_TOLERANCE + 1 / min(width, height)
    if abs(across / down - 1) > slack:
        raise AnnotationError(
            f"{file}: is {width} x {height} px where its slide is {size_l0.w} x {size_l0.h}; "
            "give a mask of the whole slide, at any resolution"
        )


def _nearest(n: int, px_l0: float, side_l0: int, n_drawn: int) -> tuple[NDArray[np.int64], Mask]:
    """The drawn pixel at the centre of each of `n` mask px along a side, and whether that is on the slide."""
    centre_l0 = l0_from_mask(np.arange(n) + 0.5, px_l0)
    found = np.floor(centre_l0 * n_drawn / side_l0).astype(np.int64)
    return np.clip(found, 0, n_drawn - 1), centre_l0 < side_l0
