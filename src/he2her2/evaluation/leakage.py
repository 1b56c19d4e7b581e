"""Checks that keep training, validation and test apart: patients, weights and settings."""

from collections.abc import Iterable
from pathlib import Path

from he2her2.errors import EvaluationError, ManifestError, few_of
from he2her2.evaluation.cases import Cases
from he2her2.evaluation.limitations import PROVENANCE_PARTLY_UNKNOWN, PROVENANCE_UNKNOWN
from he2her2.files import write_json
from he2her2.manifest import (
    Split,
    hashed_patient,
    patient_key,
    patients_used,
    read_patients_record,
)
from he2her2.models import CARD_FILE, ROLES, Card, read_card
from he2her2.results import RunFolder

_VALIDATION_PATIENTS = "validation_patients"


def check_tested(run: Path, slides: Cases, split: Split | None) -> tuple[str, ...]:
    """The evaluated patients with whom a run's weights were trained or chosen, by name: none where they are tested on.

    Args:
        run: The predict run.
        slides: The evaluated slides.
        split: Their split; those of train and val are no test.

    Raises:
        EvaluationError: There are such patients, and the split is neither train nor val.
    """
    used = patients_used(run).hashes
    shared = tuple(sorted(name for name in set(slides.patients.tolist()) if hashed_patient(name) in used))
    if shared and split not in ("train", "val"):
        raise EvaluationError(
            f"{run}: its weights were trained or chosen with {len(shared)} of the patients to evaluate "
            f"({few_of(shared)}); mark them as train or val in the manifest's split column, or pass --split train or "
            "--split val to evaluate them as such"
        )
    return shared


def trained_with(cases: Cases, weights: Path) -> tuple[str, ...]:
    """The patients with whom weights were trained, by name; their probabilities are too good to choose anything on.

    Args:
        cases: Of the patients.
        weights: Folder of the weights, or of a run that they made.
    """
    trained = patients_used(weights).trained
    return tuple(name for name in dict.fromkeys(cases.patients.tolist()) if hashed_patient(name) in trained)


def provenance_limitations(run: Path) -> tuple[str, ...]:
    """Limitations of the record of the patients with whom the weights were trained and chosen; none if it is whole."""
    used = patients_used(run)
    if used.complete:
        return ()
    return (PROVENANCE_PARTLY_UNKNOWN if used.unrecorded else PROVENANCE_UNKNOWN,)


def check_disjoint(tested: Cases, validation: Cases) -> None:
    """Raise unless test and validation have no patient in common.

    Raises:
        EvaluationError: A patient is in both.
    """
    both = {patient_key(name) for name in tested.patients.tolist()} & {
        patient_key(name) for name in validation.patients.tolist()
    }
    if both:
        raise EvaluationError(
            f"{len(both)} patients are both evaluated and used to choose the operating point ({few_of(sorted(both))}); "
            "give validation slides of other patients"
        )


def check_same_model(run: RunFolder, validation: RunFolder) -> None:
    """Raise unless two runs were predicted with the same weights and settings.

    Raises:
        EvaluationError: Weights or settings of the two runs differ.
    """
    differing = [
        what
        for what, one, other in (
            ("weights", run.description.weights, validation.description.weights),
            ("settings", _prediction_settings(run), _prediction_settings(validation)),
        )
        if one != other
    ]
    if differing:
        raise EvaluationError(
            f"{validation.path}: was predicted with other {' and '.join(differing)} than {run.path}; predict the "
            "validation slides with the same"
        )


def _prediction_settings(run: RunFolder) -> dict[str, object]:
    """The settings that change a probability."""
    settings = dict(run.description.config or {})
    return {name: value for name, value in settings.items() if name not in ("runtime", "threshold", "stored_rules")}


def check_weights(run: RunFolder, folder: Path) -> dict[str, Card]:
    """Cards of a folder of weights, by role, if a run was predicted with them.

    Raises:
        EvaluationError: It was predicted with others, or does not say.
        WeightsError: A card cannot be read.
    """
    cards: dict[str, Card] = {
        role: read_card(folder / role, role) for role in ROLES if (folder / role / CARD_FILE).is_file()
    }
    if not cards:
        raise EvaluationError(f"{folder}: holds no weights; give the folder that the run was made with")
    used = [note.sha256 for note in run.description.weights if note.sha256]
    here = [card.summary["sha256"] for card in cards.values()]
    if not used or any(hashes not in here for hashes in used):
        raise EvaluationError(f"{folder}: are not the weights that {run.path} was predicted with; give those")
    return cards


def add_validation_patients(path: Path, patients: Iterable[str]) -> None:
    """Add patients to those that a `patients.json` names as validation patients, hashed.

    Raises:
        EvaluationError: The file cannot be read.
        OutputError: It cannot be written.
    """
    try:
        found = dict(read_patients_record(path)) if path.is_file() else {}
    except ManifestError:
        raise EvaluationError(f"{path}: cannot be read; mend or delete it") from None
    hashed = set(found.get(_VALIDATION_PATIENTS, ()))
    found[_VALIDATION_PATIENTS] = sorted(hashed | {hashed_patient(name) for name in patients})
    write_json(path, found, ascii_only=True)
