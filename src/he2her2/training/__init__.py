"""Training of the three networks: a shared core, and a room each for `tumour`, `tiles` and `slides`.

The trainings themselves load torch and Lightning, and are entered directly: `tumour.train`, `tiles.train` and
`slides.train`.
"""

from he2her2.training.report import REPORT, distinct_notices
from he2her2.training.run import Execution, begin_run, fingerprint, is_first_process
from he2her2.training.settings import (
    TRAININGS,
    FeatureTraining,
    Hardware,
    SlideTraining,
    TileTraining,
    load_training,
)

__all__ = [
    "REPORT",
    "TRAININGS",
    "Execution",
    "FeatureTraining",
    "Hardware",
    "SlideTraining",
    "TileTraining",
    "begin_run",
    "distinct_notices",
    "fingerprint",
    "is_first_process",
    "load_training",
]
