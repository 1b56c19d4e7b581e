"""No figure of a test on patients who had a say in what is tested: weights, thresholds, calibration."""

from collections.abc import Sequence
from pathlib import Path

from he2her2.errors import EvaluationError
from he2her2.evaluation.cases import Cases
from he2her2.manifest import Manifest, patient_key, patients_used, shared_patients

_SHOWN = 5


def training_patients(run: Path, manifest: Manifest, slides: Cases) -> tuple[str, ...]:
    """The evaluated patients with whom the run's weights were trained or chosen, by name."""
    evaluated = set(slides.ids.tolist())
    return shared_patients((row for row in manifest.rows if row.slide_id in evaluated), run)


def refuse_training_patients(run: Path, shared: Sequence[str]) -> None:
    """Refuse to call something a test that is none.

    Raises:
        EvaluationError: Evaluated patients had a say in the weights.
    """
    if shared:
        raise EvaluationError(
            f"{run}: its weights were trained or chosen with {len(shared)} of the patients to evaluate "
            f"({_some(shared)}); mark them as train or val in the manifest's split column, or pass --split train or "
            "--split val to look at them as what they are"
        )


def provenance_known(run: Path) -> bool:
    """Whether anything says which patients the weights were trained and chosen with."""
    return bool(patients_used(run).sources)


def refuse_shared(tested: Cases, validation: Cases) -> None:
    """Refuse to choose an operating point with patients of the test.

    Raises:
        EvaluationError: A patient is in both.
    """
    both = {patient_key(name) for name in tested.patients.tolist()} & {
        patient_key(name) for name in validation.patients.tolist()
    }
    if both:
        raise EvaluationError(
            f"{len(both)} patients are both evaluated and used to choose the operating point ({_some(sorted(both))}); "
            "give validation slides of other patients"
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
