"""Who had a say in a choice: the patients with whom weights and thresholds were found, written down and read again."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from he2her2.errors import ManifestError
from he2her2.files import read_json, sha256_of, write_json
from he2her2.manifest.patients import patient_key
from he2her2.manifest.table import Manifest, SlideRow, Split

RECORD = "patients.json"
"""Where a folder of weights or an operating point names its patients; a run names them in its `run.json`."""

_KEYS = ("training_patients", "validation_patients")
_DIGITS = 32


@dataclass(frozen=True, slots=True)
class UsedPatients:
    """The patients that a folder's weights and thresholds were chosen with.

    Attributes:
        marks: Their marks, see `patient_mark`.
        sources: The files that say so; empty where nothing was written down, which is no proof of anything.
        trained: Of the marks, those of patients that were learned from, not only chosen with.
    """

    marks: frozenset[str]
    sources: tuple[Path, ...]
    trained: frozenset[str] = frozenset()


def patient_mark(patient_id: str) -> str:
    """A patient's name, hashed, so that a folder that is passed on names nobody in clear.

    It keeps honest people from reading names; whoever has a list of names can still try them.

    Example:
        >>> patient_mark("TCGA-A1-A0SK-01Z-00-DX1") == patient_mark("tcga-a1-a0sk")
        True
    """
    return hashlib.sha256(f"he2her2 patient {patient_key(patient_id)}".encode()).hexdigest()[:_DIGITS]


def describe_patients(manifest: Manifest) -> dict[str, Any]:
    """What a run writes into its `run.json` (or `patients.json`) of the patients that it trains and chooses with.

    Returns:
        For JSON: the manifest's name and SHA-256, and the marks of the patients of the splits train and val.
    """
    return {
        "manifest": manifest.path.name,
        "manifest_sha256": sha256_of(manifest.path),
        _KEYS[0]: _marks(manifest.rows, "train"),
        _KEYS[1]: _marks(manifest.rows, "val"),
    }


def write_patients(weights: Path, own: Mapping[str, Any], teachers: Iterable[Path] = ()) -> None:
    """Name beside weights everyone who had a say in them, so that a copy of the folder still knows.

    Args:
        weights: The folder.
        own: Those of this training, as `describe_patients` gives them.
        teachers: Folders of weights that it started from; what they say of their patients is added.

    Raises:
        ManifestError: A teacher's record is damaged.
        OutputError: It cannot be written.
    """
    known = [own, *map(patients_behind, teachers)]
    merged = {key: sorted({mark for names in known for mark in names.get(key, ())}) for key in _KEYS}
    write_json(weights / RECORD, {**own, **merged}, ascii_only=True)


def patients_behind(weights: Path) -> dict[str, list[str]]:
    """Those who had a say in some weights, for the record of what is made with them; empty where nobody knows.

    Raises:
        ManifestError: A record is damaged.
    """
    used = used_for_choice(weights)
    if not used.sources:
        return {}
    return {_KEYS[0]: sorted(used.trained), _KEYS[1]: sorted(used.marks - used.trained)}


def used_for_choice(folder: Path) -> UsedPatients:
    """The patients with whom a folder's weights and thresholds were chosen.

    Args:
        folder: Of a training run, of weights (or one of their roles), or of a prediction made with such weights.

    Raises:
        ManifestError: A record is damaged.
    """
    marks: set[str] = set()
    trained: set[str] = set()
    sources = []
    for path in _records(folder):
        found = _read(path)
        lists = [found[key] for key in _KEYS if key in found]
        if lists:
            marks.update(mark for names in lists for mark in names)
            trained.update(found.get(_KEYS[0], ()))
            sources.append(path)
    return UsedPatients(frozenset(marks), tuple(sources), frozenset(trained))


def shared_with_choice(rows: Iterable[SlideRow], folder: Path) -> tuple[str, ...]:
    """The patients of `rows` with whom a folder's weights or thresholds were chosen, by name, sorted."""
    marks = used_for_choice(folder).marks
    return tuple(sorted({row.patient_id for row in rows if patient_mark(row.patient_id) in marks}))


def _marks(rows: Iterable[SlideRow], split: Split) -> list[str]:
    return sorted({patient_mark(row.patient_id) for row in rows if row.split == split})


def _records(folder: Path) -> list[Path]:
    """Where a folder's patients may be named: in itself, in the weights it was made with, in the run that holds it."""
    places = [folder, *_weights_of(folder)]
    places += [place.parent for place in places if place.name == "weights"]
    places += [place.parent.parent for place in places if place.parent.name == "weights"]
    found = (place / name for place in places for name in ("run.json", RECORD))
    return list(dict.fromkeys(path for path in found if path.is_file()))


def _weights_of(folder: Path) -> list[Path]:
    """The weights folder that a prediction's command line names, where it is still there."""
    path = folder / "run.json"
    command = _read(path).get("command", []) if path.is_file() else []
    named = [command[i + 1] for i, word in enumerate(command[:-1]) if word == "--weights"]
    named += [word.removeprefix("--weights=") for word in command if str(word).startswith("--weights=")]
    return [Path(name) for name in named if Path(name).is_dir()]


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise ManifestError([f"{path}: cannot be read ({error}), so nobody knows who chose these weights"]) from None
