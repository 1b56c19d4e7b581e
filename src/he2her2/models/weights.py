"""Folders of weights, read: `model.onnx` for prediction, `weights.safetensors` for training, `card.json` about both.

Everything that is read is checked: role, version, hashes, every tensor's name, shape and values.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from he2her2.errors import WeightsError, few_of
from he2her2.files import read_record, sha256_of
from he2her2.labels import Her2Status
from he2her2.models.card import Card, Role, Spec, card_from_json
from he2her2.models.encoders import IHC_CLASSES, TUMOUR_CLASSES
from he2her2.models.graph_check import AGAIN, read_graph
from he2her2.models.signature import Arrays, Shape

CARD_FILE = "card.json"
ONNX_FILE = "model.onnx"
TENSOR_FILE = "weights.safetensors"
_CLASSES: Mapping[Role, tuple[str, ...]] = {
    "tumour_cnn": TUMOUR_CLASSES,
    "tile_cnn": IHC_CLASSES,
    "aggregator": (Her2Status.NEGATIVE.value, Her2Status.POSITIVE.value),
}
"""Meaning of the logits of each network, in the order in which they are read."""

_CHUNK = 1 << 22
_NORM_EPSILON = 1e-5  # torch's
_MOST_PROBLEMS = 20


def read_card(folder: Path, role: Role) -> Card:
    """Read the card of a folder, without looking at the weights.

    Raises:
        WeightsError: There is no folder or no card, it cannot be understood, or it is that of another role or of other
            classes.
    """
    if not folder.is_dir():
        raise WeightsError(f"{folder}: there is no such folder; weights of a {role} belong there")
    file = folder / CARD_FILE
    try:
        card = card_from_json(read_record(file))
    except FileNotFoundError:
        raise WeightsError(f"{file}: is missing; {AGAIN}") from None
    except OSError as error:
        raise WeightsError(f"{file}: cannot be read ({error.strerror}); check the file and its permissions") from None
    except UnicodeDecodeError:
        raise WeightsError(f"{file}: is not text; {AGAIN}") from None
    except ValueError as error:
        raise WeightsError(f"{file}: {error}; {AGAIN}") from None
    if card.role != role:
        raise WeightsError(
            f"{folder}: its weights are those of a {card.role} ({card.network.name}), a {role} is wanted; "
            "put each network into the folder of its name"
        )
    if card.network.classes != _CLASSES[role]:
        raise WeightsError(
            f"{file}: its classes are {', '.join(card.network.classes)}, where {', '.join(_CLASSES[role])} are read in "
            "this order: its answers would be taken for others; export the network with these classes"
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
            raise WeightsError(f"{folder / CARD_FILE}: says nothing of {name}; {AGAIN}")
        if not file.is_file():
            raise WeightsError(f"{file}: is missing; {AGAIN}")
        n_bytes = file.stat().st_size
        if n_bytes != note.n_bytes:
            raise WeightsError(f"{file}: has {n_bytes} bytes where its card says {note.n_bytes}; {AGAIN}")
        if sha256_of(file) != note.sha256:
            raise WeightsError(f"{file}: is not the file that its card describes (other SHA-256); {AGAIN}")
    _check_values(folder, card)


def load_tensors(folder: Path, card: Card) -> dict[str, NDArray[np.float32]]:
    """Every tensor of a folder's network; `verify` first.

    Raises:
        WeightsError: They are not those of the folder's ONNX file.
    """
    exported = read_graph(folder / ONNX_FILE, card.network)
    with _open_tensors(folder / TENSOR_FILE, card.network, exported) as tensors:
        return {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118  it is no mapping


def _check_values(folder: Path, card: Card) -> None:
    """Refuse values that are no numbers, and an ONNX file of other values than the safetensors file."""
    exported = read_graph(folder / ONNX_FILE, card.network)
    for name, tensor in exported.items():
        _check_finite(folder / ONNX_FILE, name, tensor)
    norms = {name: layer for layer in card.network.layers or () if layer.norm for name in layer.tensors}
    with _open_tensors(folder / TENSOR_FILE, card.network, exported) as tensors:
        for name in tensors.keys():  # noqa: SIM118  it is no mapping
            tensor = tensors.get_tensor(name)
            _check_finite(folder / TENSOR_FILE, name, tensor)
            if name in exported and name not in norms and not _equal(tensor, exported[name]):
                raise _differing(folder, name)
        for layer in {layer.norm: layer for layer in norms.values()}.values():
            parts = [tensors.get_tensor(name) for name in (*layer.tensors, *layer.norm_tensors)]
            for name, folded in zip(layer.tensors, _fold_norm(*parts), strict=True):
                if not np.allclose(exported[name], folded, rtol=1e-5, atol=1e-6 * float(np.abs(folded).max())):
                    raise _differing(folder, name)


def _fold_norm(
    weight: NDArray[np.float32],
    bias: NDArray[np.float32],
    scale: NDArray[np.float32],
    shift: NDArray[np.float32],
    mean: NDArray[np.float32],
    variance: NDArray[np.float32],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weight (o, i, k, k) and bias (o,) of a convolution with the batch norm after it, as torch folds them."""
    with np.errstate(all="ignore"):
        factor = scale / np.sqrt(variance.astype(np.float64) + _NORM_EPSILON)
        return weight * factor[:, None, None, None], (bias.astype(np.float64) - mean) * factor + shift


def _differing(folder: Path, name: str) -> WeightsError:
    return WeightsError(f"{folder}: {name} is another in {ONNX_FILE} than in {TENSOR_FILE}; train or import again")


def _check_finite(file: Path, name: str, tensor: NDArray[np.float32]) -> None:
    if not all(np.isfinite(part).all() for part in _chunks(tensor)):
        raise WeightsError(f"{file}: {name} holds a value that is no number; train or import again")


def _equal(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    return all(np.array_equal(*parts) for parts in zip(_chunks(one), _chunks(other), strict=True))


@contextmanager
def _open_tensors(file: Path, network: Spec, exported: Arrays) -> Iterator[Any]:
    """Open a safetensors file and check its tensors' names and shapes."""
    shapes = {name: tensor.shape for name, tensor in exported.items()}
    for layer in network.layers or ():
        shapes |= {**layer.tensors, **layer.norm_tensors}
    try:
        with safe_open(file, framework="numpy") as tensors:
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118  it is no mapping
            found = {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}
            _check_tensors(file, network.name, found, shapes)
            yield tensors
    except SafetensorError as error:
        raise WeightsError(f"{file}: is not a safetensors file ({error}); {AGAIN}") from None


def _check_tensors(
    file: Path, network: str, found: Mapping[str, tuple[Shape, str]], wanted: Mapping[str, Shape]
) -> None:
    problems = [f"{name} is missing" for name in wanted if name not in found]
    problems += [f"{name:.80} is unknown" for name in found if name not in wanted]
    problems += [
        f"{name} is {shape} {dtype} where {wanted[name]} F32 is wanted"
        for name, (shape, dtype) in found.items()
        if name in wanted and (shape, dtype) != (wanted[name], "F32")
    ]
    if problems:
        told = few_of(problems, _MOST_PROBLEMS, between="; ")
        raise WeightsError(f"{file}: these are not the weights of a {network}: {told}; train or import again")


def _chunks(tensor: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """A large tensor in pieces, so that looking at it takes little memory."""
    flat = tensor.reshape(-1)
    return (flat[start : start + _CHUNK] for start in range(0, flat.size, _CHUNK))
