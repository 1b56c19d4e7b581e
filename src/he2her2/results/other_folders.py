"""Folders of other commands, told from a run by the files that each command writes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from he2her2.errors import EvaluationError, few_of
from he2her2.files import json_text, read_json
from he2her2.results.run_tables import PREDICTIONS_FILE

RUN_FILE = "run.json"

_VERSION = "version"
_OF_PIXELS = frozenset({"runtime.precision", "runtime.backend"})
_GIVE_RUN = "give the --out folder of he2her2 predict"
_BY_RESULT = {"evaluation.json": "evaluate", "comparison.json": "compare", "tumour_test.json": "test tumour"}


def refuse_other_folder(folder: Path) -> None:
    """Raise where a folder is that of a command which predicts nothing, whatever tables it shares with a run.

    Args:
        folder: Given as a run.

    Raises:
        EvaluationError: It is such a folder; the message says of which command, and what to run.
    """
    if found := _other_in_words(folder):
        raise EvaluationError(f"{folder}: holds {found}")


def _other_in_words(folder: Path) -> str:
    """Content of a folder that is no run, and what to do; empty where it may be a run."""
    if (folder / RUN_FILE).is_file():
        return _described_in_words(folder)
    if (folder / PREDICTIONS_FILE).is_file():
        return ""
    for name, command in _BY_RESULT.items():
        if (folder / name).is_file():
            return f"the {name} of he2her2 {command}, not a run; {_GIVE_RUN}"
    if (folder / "card.json").is_file() or any(folder.glob("*/card.json")):
        return f"weights, not a run; {_GIVE_RUN} --weights {folder}"
    if any(folder.glob("*.h5")):
        return f"tiles or features (.h5), not a run; {_GIVE_RUN} over their slides"
    return ""


def _described_in_words(folder: Path) -> str:
    """The same of a folder that a `run.json` describes; one that cannot be read is refused where it is read."""
    try:
        description = read_json(folder / RUN_FILE)
    except (OSError, ValueError):
        return ""
    kind = description.get("kind")
    if "encoder" in description:
        return f"the features of he2her2 features, not predictions; {_GIVE_RUN} over their slides"
    if "training" not in description:
        return ""
    if kind == "ablation":
        return f"an ablation of he2her2 ablate, not predictions; {_GIVE_RUN}"
    if kind == "features":
        return (
            "a training of he2her2 train slides --features, not predictions; give its folder out-of-fold, or the "
            f"--out folder of he2her2 predict --weights {folder / 'weights'}"
        )
    return f"a training of he2her2 train {kind}, not predictions; {_GIVE_RUN} --weights {folder / 'weights'}"


def other_run_in_words(file: Path, made: Mapping[str, Any]) -> str:
    """The difference of another run from one that is to be made: version, else settings, weights and options by name.

    Args:
        file: Its `run.json`.
        made: Description of the run to be made.
    """
    here = _told(json.loads(json_text(made)))
    try:
        there = _told(read_json(file))
    except (OSError, ValueError):
        return "of other settings or weights"
    if there.get(_VERSION) not in (None, here[_VERSION]):
        return f"of he2her2 {there[_VERSION]}, and this is {here[_VERSION]}"
    names = [name for name in sorted(there.keys() | here.keys()) if there.get(name) != here.get(name)]
    return f"of other settings or weights{f' ({few_of(names)})' if names else ''}"


def _told(record: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a description that make a run another, by name."""
    told = {"weights": record.get("weights")}
    for group in ("config", "overrides"):
        values = record.get(group)
        for name, value in values.items() if isinstance(values, dict) else ():
            told |= {f"{name}.{key}": one for key, one in value.items()} if isinstance(value, dict) else {name: value}
    versions = record.get("versions")
    told[_VERSION] = versions.get("he2her2") if isinstance(versions, dict) else None
    return {name: value for name, value in told.items() if not name.startswith("runtime.") or name in _OF_PIXELS}
