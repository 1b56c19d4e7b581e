"""Keep a choice beside the weights that it was made for, with the patients who made it."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from he2her2.errors import EvaluationError
from he2her2.evaluation.choice import Choice
from he2her2.files import read_json, write_json
from he2her2.manifest import PATIENTS_FILE, hashed_patient
from he2her2.models.card import Card
from he2her2.models.stored_rules import hashes_of, write_rules
from he2her2.models.weights import CARD_FILE, read_card
from he2her2.models.zoo import Role
from he2her2.results import RunFolder
from he2her2.rules import RULES_FILE

if TYPE_CHECKING:
    from he2her2.evaluation.evaluate import Evaluation

_ROLES: tuple[Role, ...] = ("tumour_cnn", "tile_cnn", "aggregator")
_KEY = "validation_patients"


def check_weights(run: RunFolder, folder: Path) -> dict[str, Card]:
    """The cards of a folder of weights, if a run was made with them.

    Raises:
        EvaluationError: It was made with others, or does not say.
        WeightsError: A card cannot be read.
    """
    cards: dict[str, Card] = {
        role: read_card(folder / role, role) for role in _ROLES if (folder / role / CARD_FILE).is_file()
    }
    if not cards:
        raise EvaluationError(f"{folder}: holds no weights; give the folder that the run was made with")
    used = [note.sha256 for note in run.description.weights if note.sha256]
    here = [card.summary["sha256"] for card in cards.values()]
    if not used or any(hashes not in here for hashes in used):
        raise EvaluationError(f"{folder}: are not the weights that {run.path} was predicted with; give those")
    return cards


def same_model(run: RunFolder, validation: RunFolder) -> None:
    """Refuse to choose for one model with the probabilities of another.

    Raises:
        EvaluationError: Weights or settings of the two runs differ.
    """
    differing = [
        what
        for what, one, other in (
            ("weights", run.description.weights, validation.description.weights),
            ("settings", _deciding(run), _deciding(validation)),
        )
        if one != other
    ]
    if differing:
        raise EvaluationError(
            f"{validation.path}: was predicted with other {' and '.join(differing)} than {run.path}; predict the "
            "validation slides with the same"
        )


def _deciding(run: RunFolder) -> dict[str, object]:
    """The settings that shape a probability."""
    settings = dict(run.description.config or {})
    return {name: value for name, value in settings.items() if name not in ("runtime", "threshold", "stored_rules")}


def store(choice: Choice, patients: Iterable[str], run: RunFolder, folder: Path) -> Path:
    """Write the rules into a folder of weights, and who chose them into its `patients.json`.

    Args:
        choice: What was chosen.
        patients: Names of the validation patients.
        run: That was made with the weights.
        folder: Of the weights.

    Returns:
        The file of the rules.

    Raises:
        EvaluationError: Nothing could be chosen, or the weights are others.
        OutputError: The folder cannot be written.
    """
    if choice.point is None and choice.triage is None:
        raise EvaluationError(f"there is nothing to store: {'; '.join(choice.refusals)}")
    cards = check_weights(run, folder)
    add_patients(folder / PATIENTS_FILE, patients)  # first: a rule without its patients could be tested on them
    write_rules(folder, choice.rules(hashes_of(cards)))
    return folder / RULES_FILE


def keep(evaluation: "Evaluation", folder: Path) -> Path:
    """Keep what an evaluation chose beside the weights; arguments and errors are those of `store`."""
    if evaluation.applied is None or evaluation.validation is None:
        raise EvaluationError(
            "there is nothing to store: no validation slides; give --validation RUN, or predict slides of split val too"
        )
    patients = evaluation.validation.joined.patients.patients.tolist()
    return store(evaluation.applied.choice, patients, evaluation.run, folder)


def add_patients(path: Path, patients: Iterable[str]) -> None:
    """Add patients to those with whom the weights were chosen.

    Raises:
        EvaluationError: What is there cannot be understood.
        OutputError: It cannot be written.
    """
    try:
        found = read_json(path) if path.is_file() else {}
        marks = set(found.get(_KEY, ()))
    except (ValueError, TypeError):
        raise EvaluationError(f"{path}: cannot be understood; mend or delete it") from None
    found[_KEY] = sorted(marks | {hashed_patient(name) for name in patients})
    write_json(path, found, ascii_only=True)
