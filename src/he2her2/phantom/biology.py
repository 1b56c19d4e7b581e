"""What one patient's tissue is like: drawn from the seed, the same whichever stain or scanner shows it."""

from dataclasses import dataclass

import numpy as np

from he2her2.labels import IhcScore
from he2her2.phantom.chance import key_of
from he2her2.phantom.spec import PhantomSpec

_AMPLIFIED = {IhcScore.ZERO: 0.0, IhcScore.ONE: 0.0, IhcScore.TWO: 0.0, IhcScore.THREE: 1.0}


@dataclass(frozen=True)
class Biology:
    """The tumour's habit and the tissue around it.

    Attributes:
        nucleus_um: Mean diameter of the tumour nuclei.
        pleomorphism: Relative spread of that diameter.
        chromatin: 0 fine and pale, 1 coarse and dark.
        nucleoli: Share of tumour nuclei with a prominent nucleolus.
        mitoses: Share of tumour cells in division.
        spacing_um: Distance between tumour cells.
        nest_um: Width of nests and sheets.
        nest_fill: Share of the tumour that is nests, the rest being stroma.
        tubules: How readily the nests form lumina.
        discohesion: How readily gaps open between tumour cells.
        lymphocytes: 0 none, 1 dense infiltrates.
        fat: 0 none, 1 mostly fat outside the tumour.
        necrosis: 0 none, 1 large fields.
        myxoid: How much of the stroma is pale and loose.
        collagen_angle: Main direction of the fibres, radians.
        effect: How far HER2 moves the morphology of its cells; 0 when `signal` is 0 or HER2 is negative.
    """

    nucleus_um: float
    pleomorphism: float
    chromatin: float
    nucleoli: float
    mitoses: float
    spacing_um: float
    nest_um: float
    nest_fill: float
    tubules: float
    discohesion: float
    lymphocytes: float
    fat: float
    necrosis: float
    myxoid: float
    collagen_angle: float
    effect: float


def draw_biology(spec: PhantomSpec) -> Biology:
    """Draw a patient; nothing but `effect` knows of HER2."""
    rng = np.random.default_rng(key_of(spec.seed, "biology"))
    nucleus_um = rng.uniform(6.8, 8.5)
    amplified = spec.ish == "positive" or _AMPLIFIED[spec.ihc_score] > 0
    return Biology(
        nucleus_um=nucleus_um,
        pleomorphism=rng.uniform(0.11, 0.19),
        chromatin=rng.uniform(0.2, 0.7),
        nucleoli=rng.uniform(0.25, 0.6),
        mitoses=rng.uniform(0.001, 0.006),
        spacing_um=nucleus_um * rng.uniform(1.35, 1.65),
        nest_um=rng.uniform(50.0, 130.0),
        nest_fill=rng.uniform(0.5, 0.72),
        tubules=rng.uniform(0.0, 1.0) ** 2,
        discohesion=rng.uniform(0.1, 0.6),
        lymphocytes=rng.uniform(0.1, 0.8),
        fat=rng.uniform(0.05, 0.55),
        necrosis=rng.uniform(0.0, 0.6),
        myxoid=rng.uniform(0.1, 0.7),
        collagen_angle=rng.uniform(0.0, np.pi),
        effect=spec.signal if amplified else 0.0,
    )
