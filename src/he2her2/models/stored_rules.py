"""`decision_rules.json` in a folder of weights: written once chosen, read and checked against the weights."""

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from he2her2.errors import WeightsError
from he2her2.files import write_text
from he2her2.models.card import Card
from he2her2.models.weights import ONNX_FILE
from he2her2.rules import RULES_FILE, RULES_VERSION, DecisionRules, rules_to_json


def hashes_of(cards: Mapping[str, Card]) -> dict[str, str]:
    """By role, the SHA-256 of the networks that have files; to say for which weights rules hold."""
    return {role: card.files[ONNX_FILE].sha256 for role, card in sorted(cards.items()) if ONNX_FILE in card.files}


def write_rules(folder: Path, rules: DecisionRules) -> None:
    """Put rules into a folder of weights.

    Raises:
        OutputError: The folder cannot be written.
    """
    write_text(folder / RULES_FILE, rules_to_json(rules))


def read_rules(folder: Path, cards: Mapping[str, Card]) -> DecisionRules | None:
    """The rules in a folder of weights; None where there are none.

    Args:
        folder: Of the weights.
        cards: Of its networks, by role.

    Raises:
        WeightsError: They cannot be understood, or were chosen for other weights.
    """
    file, again = folder / RULES_FILE, "choose them again on validation patients, or delete the file"
    try:
        fields = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise WeightsError(f"{file}: cannot be read ({error.strerror}); check the file and its permissions") from None
    except ValueError as error:
        raise WeightsError(f"{file}: is not JSON text ({error}); {again}") from None
    if not isinstance(fields, dict) or fields.get("version") != RULES_VERSION:
        raise WeightsError(f"{file}: is not of version {RULES_VERSION}, which this he2her2 reads; {again}")
    try:
        rules = TypeAdapter(DecisionRules).validate_python(fields)
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors())
        raise WeightsError(f"{file}: {'; '.join(problems)}; {again}") from None
    here = hashes_of(cards)
    differing = [
        role for role in sorted(rules.weights.keys() | here.keys()) if rules.weights.get(role) != here.get(role)
    ]
    if differing:
        raise WeightsError(f"{file}: was chosen for another {' and '.join(differing)}; {again}")
    return rules
