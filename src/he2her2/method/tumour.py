"""Invasive tumour of one slide: HASHI's samples of a tumour CNN (paper, 3.1.2)."""

from functools import partial

import numpy as np
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


def tumour_threshold(card: Card, settings: Adaptive) -> float:
    """Probability from which the map is tumour: of the settings, else of the network's card, else 0.24."""
    return settings.threshold or card.threshold or PAPER_THRESHOLD


def as_seen(tumour_cnn: Engine, settings: Adaptive) -> Engine:
    """The tumour CNN as the settings let it see a patch: once, or from both sides."""
    return HalfTurnedEngine(tumour_cnn) if settings.half_turn else tumour_cnn


def find_tumour(
    slide: Slide,
    tumour_cnn: Engine,
    size: Size,
    px_l0: float,
    config: Config,
    watch: Watch | None = None,
    tissue: Mask | None = None,
) -> AdaptiveMap:
    """Map of the probability of invasive tumour by adaptive sampling: HASHI asks for points, the network scores them.

    Args:
        slide: An open slide.
        tumour_cnn: Tells invasive tumour from other tissue.
        size: Width and height of the map.
        px_l0: Level-0 px per pixel of the map.
        config: Adaptive, tiling and runtime are used.
        watch: Observes progress and time.
        tissue: (h, w) where the samples must be readable.

    Raises:
        DamagedSlideError: More than 10 % of the first samples of tissue, which lie all over it, are lost.
    """
    tumour_cnn = as_seen(tumour_cnn, config.adaptive)
    spec = tumour_cnn.card.input
    mpp = native_mpp(slide, spec, config.tiling)
    side_l0 = spec.side_px * mpp / slide.mpp
    total = config.adaptive.iterations * config.adaptive.points
    to_anchor = 0.5 if config.adaptive.anchor == "corner" else 0.0  # points are centres of mask px
    n_scored = 0
    watch = watch or Watch()

    def score(points: NDArray[np.float64]) -> NDArray[np.float64]:
        nonlocal n_scored
        centres = l0_from_mask(points - to_anchor, px_l0)
        if config.adaptive.corners:  # the map reaches the slide's border
            origins = windows_about(centres, side_l0, slide.size_l0)
        else:
            origins = np.rint(centres - side_l0 / 2).astype(np.int64)
        grid = TileGrid(origins, side_l0, spec.side_px, mpp)
        readable, logits = infer(slide, grid, tumour_cnn, config.runtime, spent=partial(watch.streamed, "tumour"))
        probability = np.full(len(points), np.nan)
        probability[readable] = softmax(logits)[:, 1]
        if not n_scored and tissue is not None:
            _require_tissue(slide, points, np.isnan(probability), tissue)
        n_scored += len(points)
        watch.progress("tumour", n_scored, total)
        return probability

    with slide.keeping(_KEPT_BYTES):  # its rounds look at the same places
        return adaptive_map(score, size, config.adaptive)


def _require_tissue(slide: Slide, points: NDArray[np.float64], lost: Mask, tissue: Mask) -> None:
    """Raise if much of the tissue is lost: the map would guess what is there, and the rest decide alone."""
    x, y = points.astype(np.int64).T
    in_tissue = tissue[np.clip(y, 0, tissue.shape[0] - 1), np.clip(x, 0, tissue.shape[1] - 1)]
    n, n_lost = np.count_nonzero(in_tissue), np.count_nonzero(in_tissue & lost)
    if n_lost >= _LEAST_LOST and n_lost > _MAX_LOST_SHARE * n:
        found = (
            f"{n_lost} of {n} samples of its tissue cannot be decoded, or are blank where a coarser level shows tissue"
        )
        raise DamagedSlideError(slide.slide_id, found, "copy or scan the file again")
