"""Networks of several folders, joined to one folder of weights with one record of their patients."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from he2her2.errors import OutputError, WeightsError
from he2her2.files import atomic
from he2her2.manifest import join_records, write_record
from he2her2.models.card import Role
from he2her2.models.weights import CARD_FILE, ONNX_FILE, TENSOR_FILE, read_card, verify


def join_weights(networks: Mapping[Role, Path], out: Path) -> dict[str, list[str]]:
    """Copy networks into a new folder of weights, and join the records of the patients used in them.

    Rules and domain are not taken over: they hold for the networks that they were chosen with.

    Args:
        networks: By role, the network's own folder, or the folder of weights or of a training that holds it.
        out: The new folder.

    Returns:
        The record: hashed patients of training and validation, and the networks without any.

    Raises:
        WeightsError: A network is missing or damaged.
        ManifestError: A record of patients is damaged.
        OutputError: The folder exists, or cannot be written.
    """
    if out.exists():
        raise OutputError(f"{out}: is there already; choose another --out")
    sources = {role: _network_folder(folder, role) for role, folder in networks.items()}
    for role, source in sources.items():
        verify(source, read_card(source, role))
    record = join_records(sources.items())
    with atomic(out) as draft:
        draft.mkdir()
        for role, source in sources.items():
            (draft / role).mkdir()
            for name in (CARD_FILE, ONNX_FILE, TENSOR_FILE):
                shutil.copyfile(source / name, draft / role / name)
        write_record(draft, record)
    return record


def _network_folder(folder: Path, role: Role) -> Path:
    """The network's own folder, by an absolute path: the folders above tell whose record it is."""
    for place in (folder, folder / role, folder / "weights" / role):
        if (place / CARD_FILE).is_file():
            return place.resolve()
    raise WeightsError(f"{folder}: holds no {role}; give a folder with {role}/, or that network's own")
