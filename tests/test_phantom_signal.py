"""`signal` moves the nuclei of HER2-positive tumours, and the more the higher it is.

That nothing tells the classes apart at signal 0 is proved pixel for pixel in `test_phantom_slide`; the AUCs over 200
slides are in `experiments/phantom_signal.py`.
"""

import numpy as np
from scipy import ndimage

from he2her2.phantom import Painter, Window, make_spec

PATIENTS = 8
SIDE = 900


def large_nuclei(seed, *, positive, signal):
    """The 90th percentile of the areas (µm²) of dark blobs in red light, by a plain threshold."""
    spec = make_spec(
        seed=seed,
        size_px=(4000, 4000),
        tissue_extent=0.6,
        tumour_share=0.7,
        foci=1,
        ihc_score="3+" if positive else "0",
        signal=signal,
    )
    painter = Painter.of(spec)
    depth = painter.anatomy.outlines.tumour.values
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    window = Window(int(x) * 32 - SIDE // 2, int(y) * 32 - SIDE // 2, SIDE, SIDE, spec.mpp)
    red = ndimage.gaussian_filter(painter.pixels(window)[0][..., 0].astype(float), 1.5)
    blobs, n = ndimage.label(ndimage.binary_opening(red < 130, iterations=3))
    areas = ndimage.sum_labels(np.ones_like(red), blobs, np.arange(1, n + 1)) * spec.mpp**2
    return float(np.percentile(areas[areas < 300], 90))


def auc(negative, positive):
    wins = np.subtract.outer(positive, negative)
    return float((wins > 0).mean() + 0.5 * (wins == 0).mean())


def test_nuclei_separate_the_classes_the_better_the_higher_the_signal():
    """Nuclear size of different patients: the AUC grows with the signal and ends above 0.85 on 16 patients."""
    negative = [large_nuclei(2 * k, positive=False, signal=0.0) for k in range(PATIENTS)]
    positive = {s: [large_nuclei(2 * k + 1, positive=True, signal=s) for k in range(PATIENTS)] for s in (0.0, 0.5, 1.0)}

    curve = [auc(negative, values) for values in positive.values()]

    assert curve == sorted(curve)
    assert curve[2] > 0.85
    assert curve[2] - curve[0] > 0.2
    assert np.mean(np.divide(positive[1.0], positive[0.0])) > 1.15
