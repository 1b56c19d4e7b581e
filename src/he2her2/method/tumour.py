"""Invasive tumour of one slide: HASHI's samples of a tumour CNN (paper, 3.1.2)."""

import math
from functools import partial

import numpy as np
import scipy
from numpy.typing import NDArray

from he2her2.config import PAPER_THRESHOLD, Adaptive, Config
from he2her2.errors import DamagedSlideError
from he2her2.geometry import Mask, Size, TileGrid, l0_from_mask, windows_about
from he2her2.method.inference import infer
from he2her2.method.raster import native_mpp
from he2her2.models import Card, Engine, HalfTurnedEngine, softmax
from he2her2.preprocessing import AdaptiveMap, adaptive_map
from he2her2.slides import Slide
from he2her2.timing import Watch

_KEPT_BYTES = 128 << 20  # of decoded tiles, between the rounds
_MAX_LOST_SHARE = 0.1  # of the first samples: each touches several compressed tiles, of which 1 % may be lost
_LEAST_LOST = 5
_MOST_DENSE = 10.0


def tumour_threshold(card: Card, settings: Adaptive) -> float:
    """Probability from which the map is tumour: of the settings, else of the network's card, else 0.24."""
    return settings.threshold or card.threshold or PAPER_THRESHOLD


def as_seen(tumour_cnn: Engine, settings: Adaptive) -> Engine:
    """The tumour CNN as the settings let it see a patch: once, or from both sides."""
    return HalfTurnedEngine(tumour_cnn) if settings.half_turn else tumour_cnn


def find_tumour(
    slide: Slide, tumour_cnn: Engine, tissue: Mask, px_l0: float, config: Config, watch: Watch | None = None
) -> AdaptiveMap:
    """Map of the probability of invasive tumour by adaptive sampling: HASHI asks for points, the network scores them.

    Args:
        slide: An open slide.
        tumour_cnn: Tells invasive tumour from other tissue.
        tissue: (h, w) of the map; samples must be readable in it, and lie closer where there is little of it.
        px_l0: Level-0 px per pixel of the map.
        config: Adaptive, tiling and runtime are used.
        watch: Observes progress and time.

    Raises:
        DamagedSlideError: More than 10 % of the first samples of tissue, which lie all over it, are lost.
    """
    tumour_cnn = as_seen(tumour_cnn, config.adaptive)
    spec = tumour_cnn.card.input
    mpp = native_mpp(slide, spec, config.tiling)
    side_l0 = spec.side_px * mpp / slide.mpp
    density = _density(config.adaptive, tissue)
    size, half = np.array(tissue.shape[::-1]), side_l0 / px_l0 / 2  # in mask px, of the map and of a window
    about, inside = 2 * math.ceil(half) + 1, np.minimum(half, size / 2) * config.adaptive.corners
    worth = np.ones_like(tissue) if density == 1 else scipy.ndimage.maximum_filter(tissue, about)
    total = config.adaptive.iterations * round(config.adaptive.points * density)
    to_anchor = 0.5 if config.adaptive.anchor == "corner" else 0.0  # points are centres of mask px
    n_scored = 0
    watch = watch or Watch()

    def score(points: NDArray[np.float64]) -> NDArray[np.float64]:
        nonlocal n_scored
        probability = np.zeros(len(points))
        asked = _at(worth, np.clip(points, inside, size - inside))  # where their windows are centred
        if asked.any():
            probability[asked] = probability_at(points[asked])
        if not n_scored:
            _require_tissue(slide, _at(tissue, points), np.isnan(probability))
        n_scored += len(points)
        watch.progress("tumour", n_scored, total)
        return probability

    def probability_at(points: NDArray[np.float64]) -> NDArray[np.float64]:
        centres = l0_from_mask(points - to_anchor, px_l0)
        if config.adaptive.corners:  # the map reaches the slide's border
            origins = windows_about(centres, side_l0, slide.size_l0)
        else:
            origins = np.rint(centres - side_l0 / 2).astype(np.int64)
        grid = TileGrid(origins, side_l0, spec.side_px, mpp)
        readable, logits = infer(slide, grid, tumour_cnn, config.runtime, spent=partial(watch.streamed, "tumour"))
        probability = np.full(len(points), np.nan)
        probability[readable] = softmax(logits)[:, 1]
        return probability

    with slide.keeping(_KEPT_BYTES):  # its rounds look at the same places
        return adaptive_map(score, Size(*size.tolist()), config.adaptive, density)


def _density(settings: Adaptive, tissue: Mask) -> float:
    """Multiple of the usual samples that a scan with so little tissue needs (`Adaptive.least_tissue`).

    Example:
        >>> mask = np.zeros((10, 10), np.bool_)
        >>> mask[0, :5] = True
        >>> round(_density(Adaptive(least_tissue=0.2), mask), 9), _density(Adaptive(least_tissue=0.02), mask)
        (4.0, 1.0)
    """
    wanted = settings.least_tissue * tissue.size / max(1, int(tissue.sum()))
    return min(max(wanted, 1.0), _MOST_DENSE)


def _at(mask: Mask, points: NDArray[np.float64]) -> Mask:
    """(n,) values of a mask at (n, 2) points (x, y), or at its border beside them."""
    x, y = points.astype(np.int64).T
    return np.asarray(mask[np.clip(y, 0, mask.shape[0] - 1), np.clip(x, 0, mask.shape[1] - 1)])


def _require_tissue(slide: Slide, in_tissue: Mask, lost: Mask) -> None:
    """Raise if much of the tissue is lost: the map would guess what is there, and the rest decide alone."""
    n, n_lost = np.count_nonzero(in_tissue), np.count_nonzero(in_tissue & lost)
    if n_lost >= _LEAST_LOST and n_lost > _MAX_LOST_SHARE * n:
        found = (
            f"{n_lost} of {n} samples of its tissue cannot be decoded, or are blank where a coarser level shows tissue"
        )
        raise DamagedSlideError(slide.slide_id, found, "copy or scan the file again")
