"""Tissue masks: thresholds on HSV saturation or value of a slide's thumbnail (paper, 3.1).

All functions take a thumbnail of about 8 µm/px, where the compression's colour noise is averaged out.
"""

from typing import TypeAlias

import numpy as np
import scipy
import skimage
from numpy.typing import NDArray

from he2her2.config import Tissue
from he2her2.geometry import Mask, Rgb

_Channel: TypeAlias = NDArray[np.uint8]
"""(h, w) raster of one colour channel."""

_FLAT_SIDE, _FLAT_RANGE = 5, 4
"""Glass differs by no more over so many px: of real IHC slides 0.62 of it and more, of their tissue 0.06 at most."""
_LEAST_GLASS = 0.1
"""Share of flat px among those that are not white, above which they are glass."""
_ALIKE = 0.75  # of flat px of one brightness; tissue that is out of focus is flat, too, and has many
_LEAST_GLASS_PX = 100
_WHITE = 255  # of pixels that were not scanned, or are overexposed


def tissue_mask(rgb: Rgb, settings: Tissue) -> Mask:
    """Find the tissue of an H&E slide, and the stain of a strong IHC slide (2+, 3+).

    Otsu's threshold on the saturation of HSV (paper, 3.1), held between two bounds. Below `min_saturation` it would cut
    through the noise of blank glass: real glass reached 10 of 255 after the blur. Above `max_saturation` it would cut
    through the tissue of a picture without glass, whose palest parts had 28.

    Args:
        rgb: (h, w, 3) thumbnail.
        settings: `blur_px`, `min_saturation` and `max_saturation` are used.

    Returns:
        (h, w); all False on blank glass, unless `min_saturation` is 0, as in the paper.

    Example:
        >>> stained, glass = [200, 100, 150], [240, 240, 240]
        >>> tissue_mask(np.array([[stained, glass]], np.uint8), Tissue(blur_px=1)).tolist()
        [[True, False]]
    """
    channel = _smoothed(_saturation(rgb), settings.blur_px)
    threshold = min(max(_otsu(channel), settings.min_saturation), settings.max_saturation)
    return np.asarray(channel > threshold)


def weak_tissue_mask(rgb: Rgb, settings: Tissue) -> Mask:
    """Find the tissue of a weak IHC slide (0, 1+): all but the brightest pixels (paper, 3.1.1).

    Where something is so much brighter than the glass that the glass itself would count as tissue (white where nothing
    was scanned, a bubble, dust), the glass is what is brightest, unless `min_saturation` is 0, as in the paper.

    Args:
        rgb: (h, w, 3) thumbnail.
        settings: `blur_px`, `weak_margin` and the bounds of saturation are used.

    Returns:
        (h, w): True where HSV's V is under its maximum less the margin.

    Example:
        >>> tissue, glass = [225, 220, 230], [240, 240, 240]
        >>> weak_tissue_mask(np.array([[tissue, glass]], np.uint8), Tissue(blur_px=1)).tolist()
        [[True, False]]
    """
    channel, margin = _smoothed(_brightness(rgb), settings.blur_px), settings.weak_margin
    brightest = int(channel.max(initial=0))
    if settings.min_saturation:
        grey = _saturation(rgb) <= settings.max_saturation  # ink is flat, too
        brightest = _brightest_glass(channel, _brightness(rgb), grey, brightest, margin)
    return np.asarray(channel < brightest - margin)


def _brightest_glass(channel: _Channel, brightness: _Channel, grey: Mask, brightest: int, margin: int) -> int:
    """Brightness of a slide's brightest glass: of flat grey px that are not white, if there are enough of them.

    Args:
        channel: (h, w) brightness, smoothed.
        brightness: (h, w)
        grey: (h, w) px that may be glass.
        brightest: Of `channel`; the answer where the glass does not lie below it by the margin.
        margin: Glass is no darker than `brightest` by so much.
    """
    scanned = brightness < _WHITE
    flat = channel[scanned & grey & _flat(brightness)]
    if len(flat) <= _LEAST_GLASS * np.count_nonzero(scanned):
        return brightest
    usual = int(np.bincount(flat).argmax())
    glass = flat[np.abs(flat.astype(int) - usual) <= margin]
    if usual > brightest - margin or usual < _WHITE // 2 or len(glass) < _ALIKE * len(flat):
        return brightest
    return int(np.percentile(glass, 99))


def glass_colour(rgb: Rgb, beside: Mask) -> tuple[float, float, float] | None:
    """Colour of a slide's glass: the median of flat px that are not white; None where there is hardly any.

    Args:
        rgb: (h, w, 3) thumbnail.
        beside: (h, w) what is no glass: tissue and ink.
    """
    glass = rgb[~beside & _flat(_brightness(rgb)) & (_darkest(rgb) < _WHITE)]
    if len(glass) < _LEAST_GLASS_PX:
        return None
    red, green, blue = np.median(glass, axis=0).tolist()
    return red, green, blue


def _flat(brightness: _Channel) -> Mask:
    """(h, w) px around which brightness hardly differs."""
    spread = scipy.ndimage.maximum_filter(brightness, _FLAT_SIDE) - scipy.ndimage.minimum_filter(brightness, _FLAT_SIDE)
    return np.asarray(spread <= _FLAT_RANGE)


def _brightness(rgb: Rgb) -> _Channel:
    """V of HSV: the greatest of R, G and B. (h, w, 3) uint8 to (h, w) uint8."""
    return np.maximum(np.maximum(rgb[..., 0], rgb[..., 1]), rgb[..., 2])


def _darkest(rgb: Rgb) -> _Channel:
    """The smallest of R, G and B. (h, w, 3) uint8 to (h, w) uint8."""
    return np.minimum(np.minimum(rgb[..., 0], rgb[..., 1]), rgb[..., 2])


def _saturation(rgb: Rgb) -> _Channel:
    """S of HSV as round(255 (V - min) / V), 0 for black. (h, w, 3) uint8 to (h, w) uint8.

    Example:
        >>> _saturation(np.array([[[200, 100, 150]]], np.uint8)).tolist()
        [[128]]
    """
    return _SATURATION[_brightness(rgb), _darkest(rgb)]


def _smoothed(channel: _Channel, blur_px: int) -> _Channel:
    """A channel after a Gaussian window of `blur_px` px a side, with the sigma that OpenCV gives such a window.

    The released code blurs with OpenCV's default: sigma = 0.3 ((blur_px - 1) / 2 - 1) + 0.8, which is 2.6 px for 15;
    the border is mirrored about its outermost px. An even side counts as the next odd one; 1 is no blur.

    Args:
        channel: (h, w) uint8.
        blur_px: Side of the window in px.
    """
    radius = blur_px // 2
    if radius == 0 or channel.size == 0:
        return channel
    sigma = 0.3 * (radius - 1) + 0.8
    blurred = scipy.ndimage.gaussian_filter(channel.astype(np.float32), sigma, radius=radius, mode="mirror")
    rounded: _Channel = np.rint(blurred).astype(np.uint8)
    return rounded


def _otsu(channel: _Channel) -> int:
    """Otsu's threshold of the values that occur; the value itself where there is only one."""
    counts = np.bincount(channel.ravel(), minlength=256)
    levels = np.flatnonzero(counts)
    if len(levels) < 2:
        return int(levels[0]) if len(levels) else 0
    between = np.arange(levels[0], levels[-1] + 1)
    return int(skimage.filters.threshold_otsu(hist=(counts[between], between)))


def _saturation_table() -> _Channel:
    """(256, 256) uint8: S of every pair of V and min; integers only, so that halves round up on every machine."""
    most, least = np.ogrid[:256, :256]
    spread = np.maximum(most - least, 0)
    table: _Channel = ((510 * spread + most) // np.maximum(2 * most, 1)).astype(np.uint8)
    return table


_SATURATION = _saturation_table()
