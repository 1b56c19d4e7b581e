"""Folders of weights, read: `model.onnx` for prediction, `weights.safetensors` for training, `card.json` about both.

Everything that is read is checked: role, version, hashes, every tensor's name, shape and values.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from he2her2.errors import WeightsError
from he2her2.files import sha256_of
from he2her2.models.card import Card, Role, card_from_json
from he2her2.models.signature import Shape

CARD_FILE = "card.json"
ONNX_FILE = "model.onnx"
TENSOR_FILE = "weights.safetensors"
_CHUNK = 1 << 22
_NORM_MEAN = ".running_mean"
_NORM_PARTS = (".weight", ".bias", _NORM_MEAN, ".running_var")
_AGAIN = "copy the folder again from where it came"


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
    """Check the files beside a card: present, of the card's hashes, and both of the same tensors.

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
    for name, tensor in _tensors(folder / TENSOR_FILE, card.network.name, _shapes_in(folder / ONNX_FILE)):
        if not all(np.isfinite(part).all() for part in _chunks(tensor)):
            raise WeightsError(f"{folder / TENSOR_FILE}: {name} holds a value that is no number; train or import again")


def load_tensors(folder: Path, card: Card) -> dict[str, NDArray[np.float32]]:
    """Every tensor of a folder's network; `verify` first.

    Raises:
        WeightsError: They are not those of the folder's ONNX file.
    """
    return dict(_tensors(folder / TENSOR_FILE, card.network.name, _shapes_in(folder / ONNX_FILE)))


def _shapes_in(file: Path) -> dict[str, Shape]:
    """Names and shapes of the tensors in an ONNX file: all of the network but its batch norms, which are folded."""
    import onnx  # noqa: PLC0415  takes a while to load
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # noqa: PLC0415

    try:
        model = onnx.load(file)
    except DecodeError:
        raise WeightsError(f"{file}: is not an ONNX file; {_AGAIN}") from None
    return {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}


def _tensors(file: Path, network: str, wanted: Mapping[str, Shape]) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Tensors one by one, after their names and shapes were checked."""
    try:
        with safe_open(file, framework="numpy") as tensors:
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118  it is no mapping
            found = {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}
            _check_tensors(file, network, found, wanted)
            for name in found:
                yield name, tensors.get_tensor(name)
    except SafetensorError as error:
        raise WeightsError(f"{file}: is not a safetensors file ({error}); {_AGAIN}") from None


def _check_tensors(
    file: Path, network: str, found: Mapping[str, tuple[Shape, str]], wanted: Mapping[str, Shape]
) -> None:
    norms = {name.removesuffix(_NORM_MEAN): shape for name, (shape, _) in found.items() if name.endswith(_NORM_MEAN)}
    folded = {f"{layer}{part}": shape for layer, shape in norms.items() for part in _NORM_PARTS}
    wanted = {**wanted, **folded}
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
