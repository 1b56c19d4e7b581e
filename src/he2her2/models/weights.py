"""A folder of weights: `model.onnx` for prediction, `weights.safetensors` for training, `card.json` about both.

What is read is checked: role, version, hashes, every tensor's name, shape and values. Nothing is skipped silently.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from he2her2.errors import WeightsError
from he2her2.files import atomic, sha256_of
from he2her2.models.card import Card, FileNote, card_from_json, card_to_json
from he2her2.models.zoo import Role, Shape, tensor_shapes

CARD_FILE = "card.json"
ONNX_FILE = "model.onnx"
TENSOR_FILE = "weights.safetensors"
_CHUNK = 1 << 22
_AGAIN = "copy the folder again from where it came"


def save_weights(folder: Path, card: Card, weights: Mapping[str, NDArray[np.float32]]) -> Card:
    """Write a network's folder, whole or not at all; an existing one is replaced.

    Args:
        folder: Where to.
        card: About the weights; the files' hashes are filled in here.
        weights: Every tensor of the network.

    Returns:
        The card with the files' hashes.

    Raises:
        ValueError: The weights are not those of the card's network, or not finite.
        OutputError: The folder cannot be written.
    """
    from he2her2.models.onnx_graph import build_onnx  # noqa: PLC0415  onnx takes a while to load and reading needs none

    for name, tensor in weights.items():
        if tensor.dtype != np.float32 or not np.isfinite(tensor).all():
            raise ValueError(f"{name} must be finite float32")
    model = build_onnx(card.network, weights)
    with atomic(folder) as draft:
        draft.mkdir()
        (draft / ONNX_FILE).write_bytes(model.SerializeToString())
        save_file({name: np.ascontiguousarray(tensor) for name, tensor in weights.items()}, draft / TENSOR_FILE)
        files = {name: _note(draft / name) for name in (ONNX_FILE, TENSOR_FILE)}
        complete = replace(card, files=files)
        (draft / CARD_FILE).write_text(card_to_json(complete), "utf-8")
    return complete


def _note(file: Path) -> FileNote:
    return FileNote(sha256_of(file), file.stat().st_size)


def read_card(folder: Path, role: Role) -> Card:
    """Read the card of a folder, without looking at the weights.

    Raises:
        WeightsError: There is no folder or no card, it cannot be understood, or it is that of another role.
    """
    if not folder.is_dir():
        raise WeightsError(f"{folder}: there is no such folder; weights of a {role} belong there")
    file = folder / CARD_FILE
    try:
        card = card_from_json(file.read_text("utf-8"))
    except FileNotFoundError:
        raise WeightsError(f"{file}: is missing; {_AGAIN}") from None
    except OSError as error:
        raise WeightsError(f"{file}: cannot be read ({error.strerror}); check the file and its permissions") from None
    except UnicodeDecodeError:
        raise WeightsError(f"{file}: is not text; {_AGAIN}") from None
    except ValueError as error:
        raise WeightsError(f"{file}: {error}; {_AGAIN}") from None
    if card.role != role:
        raise WeightsError(
            f"{folder}: its weights are those of a {card.role} ({card.network.name}), a {role} is wanted; "
            "put each network into the folder of its name"
        )
    return card


def verify(folder: Path, card: Card) -> None:
    """Check the files beside a card: present, of the card's hashes, and holding the tensors of its network.

    Raises:
        WeightsError: At the first that is wrong.
    """
    for name in (ONNX_FILE, TENSOR_FILE):
        file, note = folder / name, card.files.get(name)
        if note is None:
            raise WeightsError(f"{folder / CARD_FILE}: says nothing of {name}; {_AGAIN}")
        if not file.is_file():
            raise WeightsError(f"{file}: is missing; {_AGAIN}")
        n_bytes = file.stat().st_size
        if n_bytes != note.n_bytes:
            raise WeightsError(f"{file}: has {n_bytes} bytes where its card says {note.n_bytes}; {_AGAIN}")
        if sha256_of(file) != note.sha256:
            raise WeightsError(f"{file}: is not the file that its card describes (other SHA-256); {_AGAIN}")
    for name, tensor in _tensors(folder / TENSOR_FILE, card):
        if not all(np.isfinite(part).all() for part in _chunks(tensor)):
            raise WeightsError(f"{folder / TENSOR_FILE}: {name} holds a value that is no number; train or import again")


def load_tensors(folder: Path, card: Card) -> dict[str, NDArray[np.float32]]:
    """Every tensor of a folder's network; `verify` first.

    Raises:
        WeightsError: They are not those of the card's network.
    """
    return dict(_tensors(folder / TENSOR_FILE, card))


def _tensors(file: Path, card: Card) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Tensors one by one, after their names and shapes were checked against the card's network."""
    try:
        with safe_open(file, framework="numpy") as tensors:
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118  it is no mapping
            found = {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}
            _check_tensors(file, card.network.name, found, tensor_shapes(card.network))
            for name in found:
                yield name, tensors.get_tensor(name)
    except SafetensorError as error:
        raise WeightsError(f"{file}: is not a safetensors file ({error}); {_AGAIN}") from None


def _check_tensors(
    file: Path, network: str, found: Mapping[str, tuple[Shape, str]], wanted: Mapping[str, Shape]
) -> None:
    problems = [f"{name} is missing" for name in wanted if name not in found]
    problems += [f"{name} is unknown" for name in found if name not in wanted]
    problems += [
        f"{name} is {shape} {dtype} where {wanted[name]} F32 is wanted"
        for name, (shape, dtype) in found.items()
        if name in wanted and (shape, dtype) != (wanted[name], "F32")
    ]
    if problems:
        raise WeightsError(
            f"{file}: these are not the weights of a {network}: {'; '.join(problems)}; train or import again"
        )


def _chunks(tensor: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """A large tensor in pieces, so that looking at it takes little memory."""
    flat = tensor.reshape(-1)
    return (flat[start : start + _CHUNK] for start in range(0, flat.size, _CHUNK))
