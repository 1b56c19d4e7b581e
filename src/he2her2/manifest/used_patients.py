"""Patients that were used in training or to choose thresholds: recorded beside the weights, as hashed ids."""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from he2her2.errors import ManifestError
from he2her2.files import read_json, sha256_of, write_json
from he2her2.manifest.rows import Manifest, SlideRow, Split, names_of_patients, patient_key

PATIENTS_FILE = "patients.json"
"""File with the patients of a folder of weights or an operating point; a run has them in its `run.json`."""

_KEYS = ("training_patients", "validation_patients")
_UNRECORDED = "networks_without_record"
_NETWORKS = "networks"
_PLACE = "weights_folder"
_DIGITS = 32


@dataclass(frozen=True, slots=True)
class UsedPatients:
    """Patients that were used in training a folder's weights or in choosing its thresholds.

    Attributes:
        hashes: Their hashed ids, see `hashed_patient`.
        sources: Files with the record; empty where nothing was recorded, which proves nothing.
        trained: Hashed ids of the patients used in training, not only in validation.
        unrecorded: Networks whose patients were never recorded.
    """

    hashes: frozenset[str]
    sources: tuple[Path, ...]
    trained: frozenset[str] = frozenset()
    unrecorded: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """True if the patients of every network are on record."""
        return bool(self.sources) and not self.unrecorded


def hashed_patient(patient_id: str) -> str:
    """Hash a patient's name, so that a folder that is passed on names no patient in clear.

    Names cannot be read from hashes, but a list of names can be tried.

    Example:
        >>> hashed_patient("TCGA-A1-A0SK-01Z-00-DX1") == hashed_patient("tcga-a1-a0sk")
        True
    """
    return hashlib.sha256(f"he2her2 patient {patient_key(patient_id)}".encode()).hexdigest()[:_DIGITS]


def patients_record(manifest: Manifest) -> dict[str, str | list[str]]:
    """Return the record of the patients used in training and validation, for `run.json` or `patients.json`.

    Returns:
        For JSON: the manifest's name and SHA-256, and the hashed ids of the patients of the splits train and val.
    """
    return {
        "manifest": manifest.path.name,
        "manifest_sha256": sha256_of(manifest.path),
        _KEYS[0]: _hashes(manifest.rows, "train"),
        _KEYS[1]: _hashes(manifest.rows, "val"),
    }


def write_patients(weights: Path, own: Mapping[str, str | list[str]], parents: Iterable[Path] = ()) -> None:
    """Write the record of the used patients into a folder of weights, so that it goes with every copy.

    Args:
        weights: The folder.
        own: Patients of this training, as `patients_record` gives them.
        parents: Folders of weights that the training started from; their patients are added.

    Raises:
        ManifestError: The record of parent weights is damaged.
        OutputError: It cannot be written.
    """
    used = {parent: patients_used(parent) for parent in parents}
    merged = _merged([own, *map(recorded_patients, used)])
    unrecorded = {parent.name for parent, found in used.items() if not found.sources}
    if unrecorded:
        merged[_UNRECORDED] = sorted({*merged.get(_UNRECORDED, ()), *unrecorded})
    write_record(weights, {**own, **merged})


def write_record(weights: Path, record: Mapping[str, str | list[str]]) -> None:
    """Write a record into a folder of weights, with the networks that it is of: others may be copied there later.

    Raises:
        OutputError: It cannot be written.
    """
    write_json(weights / PATIENTS_FILE, {**record, _NETWORKS: _networks_in(weights)}, ascii_only=True)


def _networks_in(weights: Path) -> dict[str, str]:
    """By its folder, the SHA-256 of each network of a folder of weights, as its card states it."""
    found = {}
    for card in sorted(weights.glob("*/card.json")):
        try:
            found[card.parent.name] = str(read_json(card)["files"]["model.onnx"]["sha256"])
        except (OSError, ValueError, LookupError, TypeError):  # no card of a network with files
            continue
    return found


def _merged(records: Sequence[Mapping[str, str | list[str]]]) -> dict[str, list[str]]:
    """The patients of several records, and the networks that have none, as one record."""
    merged = {key: sorted({one for record in records for one in record.get(key, ())}) for key in (*_KEYS, _UNRECORDED)}
    if not merged[_UNRECORDED]:
        del merged[_UNRECORDED]
    return merged


def join_records(folders: Iterable[tuple[str, Path | None]]) -> dict[str, list[str]]:
    """One record of the patients used in several networks.

    Args:
        folders: Each network and its folder, or that of its weights; None where it has none.

    Returns:
        For `patients.json`: hashed patients of training and validation, and the networks without a record.

    Raises:
        ManifestError: A record is damaged.
    """
    return _merged([(place and recorded_patients(place)) or {_UNRECORDED: [network]} for network, place in folders])


def recorded_patients(weights: Path) -> dict[str, list[str]]:
    """Return the record of the patients used in weights; empty where there is none.

    Raises:
        ManifestError: A record is damaged.
    """
    used = patients_used(weights)
    if not used.sources:
        return {}
    record = {_KEYS[0]: sorted(used.trained), _KEYS[1]: sorted(used.hashes - used.trained)}
    return record | ({_UNRECORDED: list(used.unrecorded)} if used.unrecorded else {})


def patients_used(folder: Path) -> UsedPatients:
    """Read which patients were used in training a folder's weights or in choosing its thresholds.

    Args:
        folder: Of a training run, of weights (or one of their roles), or of a prediction made with such weights.

    Raises:
        ManifestError: A record is damaged.
    """
    hashes: set[str] = set()
    trained: set[str] = set()
    unrecorded: set[str] = set()
    sources = []
    for path in _records(folder):
        found = read_patients_record(path)
        lists = [found[key] for key in _KEYS if key in found]
        unrecorded.update(found.get(_UNRECORDED, ()))
        if _NETWORKS in found:
            recorded = found[_NETWORKS].items()
            unrecorded.update(
                role for role, sha256 in _networks_in(path.parent).items() if (role, sha256) not in recorded
            )
        if lists:
            hashes.update(one for names in lists for one in names)
            trained.update(found.get(_KEYS[0], ()))
            sources.append(path)
    return UsedPatients(frozenset(hashes), tuple(sources), frozenset(trained), tuple(sorted(unrecorded)))


def shared_patients(rows: Iterable[SlideRow], folder: Path) -> tuple[str, ...]:
    """Return the patients of `rows` that were used in a folder's weights or thresholds, by name, sorted."""
    return patients_among(rows, patients_used(folder).hashes)


def patients_among(rows: Iterable[SlideRow], hashes: Collection[str]) -> tuple[str, ...]:
    """Return the patients of `rows` whose hashes are among these, each once, by name, sorted."""
    return tuple(sorted(name for name in names_of_patients(rows).values() if hashed_patient(name) in hashes))


def _hashes(rows: Iterable[SlideRow], split: Split) -> list[str]:
    return sorted({hashed_patient(row.patient_id) for row in rows if row.split == split})


def _records(folder: Path) -> list[Path]:
    """Find records of a folder's patients: in itself, in the weights it was made with, in the folders that hold it."""
    folders = [folder.absolute(), *_weights_of(folder)]  # whose names and parents count
    folders += [one.parent for one in folders if _is_role(one)]
    folders += [one.parent for one in folders if one.name == "weights"]
    folders += [one.parent.parent for one in folders if one.parent.name == "weights"]
    found = (one / name for one in folders for name in ("run.json", PATIENTS_FILE))
    return list(dict.fromkeys(path for path in found if path.is_file()))


def _is_role(folder: Path) -> bool:
    """Check for a network's own folder that lies under its role's name: the folder that holds it is its weights'."""
    try:
        return bool(read_json(folder / "card.json")["network"]["role"] == folder.name)
    except (OSError, ValueError, LookupError, TypeError):  # no card of a network
        return False


def _weights_of(folder: Path) -> list[Path]:
    """The weights folder that a prediction was made with, where it is still there."""
    path = folder / "run.json"
    place = read_patients_record(path).get(_PLACE, "") if path.is_file() else ""
    return [Path(place)] if Path(place).is_absolute() and Path(place).is_dir() else []


def read_patients_record(path: Path) -> Mapping[str, Any]:
    """Read a record, whose lists are lists of text.

    Raises:
        ManifestError: It is damaged.
    """
    try:
        found = read_json(path)
        for key in (*_KEYS, _UNRECORDED):
            _require_texts(key, found.get(key, []))
        _require_texts(_PLACE, [found.get(_PLACE, "")])
        networks = found.get(_NETWORKS, {})
        _require_texts(_NETWORKS, list(networks.values()) if isinstance(networks, dict) else None)
    except (OSError, ValueError) as error:
        raise ManifestError(
            [f"{path}: cannot be read ({error}), so the patients used in these weights are unknown"]
        ) from None
    return found


def _require_texts(key: str, found: object) -> None:
    if not (isinstance(found, list) and all(isinstance(one, str) for one in found)):
        raise ValueError(f"{key} is no list of texts")
