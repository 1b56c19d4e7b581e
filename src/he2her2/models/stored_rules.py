"""Files beside the networks of a folder of weights, checked against these: `decision_rules.json`, `domain.json`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from he2her2.domain import DOMAIN_FILE, Domain, domain_of_record
from he2her2.errors import WeightsError
from he2her2.files import problems_in_words, read_json, write_json
from he2her2.models.card import Card
from he2her2.models.weights import ONNX_FILE
from he2her2.rules import RULES_FILE, RULES_VERSION, DecisionRules

_NOT_SCORING = "aggregator"  # the tiles' colours and scores come before it, so a domain holds for any
_FINDS_TUMOUR = "tumour_cnn"  # that of a domain without one is the user's choice: annotations stood in its place


def hashes_of(cards: Mapping[str, Card]) -> dict[str, str]:
    """By role, the SHA-256 of the networks that have files; to say for which weights rules hold."""
    return {role: card.files[ONNX_FILE].sha256 for role, card in sorted(cards.items()) if ONNX_FILE in card.files}


def write_rules(folder: Path, rules: DecisionRules) -> None:
    """Put rules into a folder of weights.

    Raises:
        OutputError: The folder cannot be written.
    """
    write_json(folder / RULES_FILE, rules)


def read_rules(folder: Path, cards: Mapping[str, Card]) -> DecisionRules | None:
    """The rules in a folder of weights; None where there are none.

    Args:
        folder: Of the weights.
        cards: Of its networks, by role.

    Raises:
        WeightsError: They cannot be understood, or were chosen for other weights.
    """
    file, again = folder / RULES_FILE, "choose them again on validation patients, or delete the file"
    fields = _read(file, again)
    if fields is None:
        return None
    if fields.get("version") != RULES_VERSION:
        raise WeightsError(f"{file}: is not of version {RULES_VERSION}, which this he2her2 reads; {again}")
    try:
        rules = TypeAdapter(DecisionRules).validate_python(fields)
    except ValidationError as error:
        raise WeightsError(f"{file}: {problems_in_words(error)}; {again}") from None
    _require_same(file, "was chosen for", rules.weights, cards, again)
    return rules


def write_domain(folder: Path, domain: Domain) -> None:
    """Put the domain of the training slides into a folder of weights.

    Raises:
        OutputError: The folder cannot be written.
    """
    write_json(folder / DOMAIN_FILE, domain)


def read_domain(folder: Path, cards: Mapping[str, Card]) -> Domain | None:
    """The domain of the training slides in a folder of weights; None where there is none.

    Args:
        folder: Of the weights.
        cards: Of its networks, by role.

    Raises:
        WeightsError: It cannot be understood, or is that of other weights.
    """
    file, again = folder / DOMAIN_FILE, "store it again with he2her2 weights domain, or delete the file"
    fields = _read(file, again)
    if fields is None:
        return None
    try:
        domain = domain_of_record(fields)
    except ValueError as error:
        raise WeightsError(f"{file}: cannot be understood ({error}); {again}") from None
    free = {_NOT_SCORING, _FINDS_TUMOUR} - domain.weights.keys() | {_NOT_SCORING}
    scoring = {role: card for role, card in cards.items() if role not in free}
    scored_by = {role: sha256 for role, sha256 in domain.weights.items() if role != _NOT_SCORING}
    _require_same(file, "is of", scored_by, scoring, again)
    return domain


def _read(file: Path, remedy: str) -> dict[str, Any] | None:
    """The JSON object in a file; None where there is no file."""
    try:
        return read_json(file)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise WeightsError(f"{file}: cannot be read ({error.strerror}); check the file and its permissions") from None
    except ValueError as error:
        raise WeightsError(f"{file}: cannot be understood ({error}); {remedy}") from None


def _require_same(file: Path, words: str, weights: Mapping[str, str], cards: Mapping[str, Card], remedy: str) -> None:
    here = hashes_of(cards)
    differing = [role for role in sorted(weights.keys() | here.keys()) if weights.get(role) != here.get(role)]
    if differing:
        raise WeightsError(f"{file}: {words} another {' and '.join(differing)}; {remedy}")
