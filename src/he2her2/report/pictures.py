"""Pictures inside a page: pixels as data URIs, so that a report is one file."""

from base64 import b64encode
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from he2her2.geometry import Mask, Rgb


def jpeg_uri(pixels: Rgb, quality: int) -> str:
    """A photograph as JPEG."""
    return _uri(Image.fromarray(pixels), "jpeg", quality=quality, optimize=True)


def mask_uri(mask: Mask, rgba: tuple[int, int, int, int]) -> str:
    """A mask in one colour, transparent outside."""
    picture = Image.fromarray(mask.astype(np.uint8), "P")
    picture.putpalette([0, 0, 0, *rgba[:3]])
    return _uri(picture, "png", optimize=True, bits=1, transparency=bytes([0, rgba[3]]))


def shades_uri(index: NDArray[np.uint8], palette: NDArray[np.uint8], opacity: NDArray[np.uint8]) -> str:
    """A map of up to 256 shades.

    Args:
        index: (h, w) shade of each pixel.
        palette: (k, 3) colours.
        opacity: (k,) of each shade.
    """
    picture = Image.fromarray(index, "P")
    picture.putpalette(palette.ravel().tolist())
    return _uri(picture, "png", optimize=True, transparency=opacity.tobytes())


def shrink(pixels: Rgb, longest_px: int) -> Rgb:
    """A photograph whose longer side has at most `longest_px` px."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((longest_px, longest_px), Image.Resampling.LANCZOS)
    return np.asarray(picture)


def _uri(picture: Image.Image, kind: str, **options: object) -> str:
    file = BytesIO()
    picture.save(file, kind, **options)
    return f"data:image/{kind};base64,{b64encode(file.getvalue()).decode('ascii')}"


def svg_uri(text: str) -> str:
    """A drawing; as an image it runs no script and loads nothing."""
    return f"data:image/svg+xml;base64,{b64encode(text.encode()).decode('ascii')}"
