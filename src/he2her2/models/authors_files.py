"""Checkpoints of the paper's authors: opened without running a pickle's code, recognised by their tensors, imported.

Six files are known (names in `AUTHORS_NAMES`). All but HASHI's are a dict with a `state_dict`; tensors are named
`conv_layers.i`, `fc_layers.i` and, where an MLP was trained with the CNN, `mlp_layers.i`.
"""

import pickle
import re
import struct
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from he2her2.config import PRESETS
from he2her2.errors import OutputError, WeightsError
from he2her2.files import sha256_of
from he2her2.models.aggregators import PAPER_MLP, AggregatorSpec
from he2her2.models.card import RESEARCH_USE, Card, Role, Spec
from he2her2.models.encoders import CNNS
from he2her2.models.export import save_weights
from he2her2.models.signature import Shape
from he2her2.models.torch_modules import tensor_shapes
from he2her2.models.weights import CARD_FILE, read_card

__all__ = ["AUTHORS_NAMES", "AUTHORS_PRESET", "import_authors_file", "read_authors_file"]

AUTHORS_PRESET = "released-code"
"""The settings under which the authors' weights were trained."""

AUTHORS_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "IHC-HER2_model.tar": "tile CNN trained on IHC tiles",
        "proposed_model.pth.tar": "the proposed method",
        "proposed_model_wOUT_pretrained_IHCweights.pth.tar": "the method without pre-trained tile weights",
        "mean-median_pretrained_IHCweights.pth.tar": "mean and median aggregation, pre-trained tile weights",
        "mean-median_wOUT_pretrained_IHCweights.pth.tar": "mean and median aggregation, no pre-trained tile weights",
        "HASHI_trained_cnn_model.pth": "HASHI's tumour CNN",
    }
)
"""The paper's name of each file: a hint for people, never for the import."""

_LICENCE = "none: the authors' files carry no licence and must not be passed on"
_DATA: Mapping[Role, str] = MappingProxyType(
    {
        "tumour_cnn": "TCGA-BRCA slides of HASHI's test set, by the paper's account (section 5.2)",
        "tile_cnn": "HER2 Scoring Contest slides, by the paper's account (section 4.1)",
        "aggregator": "HER2 Scoring Contest slides, by the paper's account (section 4.1)",
    }
)
_LIMITS = (
    "nothing was measured on these weights by this project",
    "published for the proposed method: 7 of 8 slides right (95 % interval 0.47-1.00), 17 of 54 on TCGA-BRCA",
)
_PARALLEL = "module."  # what torch's DataParallel puts before every name
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_UNREADABLE = (
    pickle.UnpicklingError, EOFError, OSError, RuntimeError, ValueError, LookupError, AttributeError, TypeError,
    AssertionError, struct.error,
)  # fmt: skip
"""Errors that torch raises of a damaged file."""


@dataclass(frozen=True, slots=True)
class CheckpointKind:
    """One kind of file: its title, and the networks whose tensors it holds."""

    title: str
    specs: tuple[Spec, ...]

    @property
    def shapes(self) -> dict[str, Shape]:
        """Name and shape of every tensor."""
        return {name: shape for spec in self.specs for name, shape in tensor_shapes(spec).items()}


KINDS = (
    CheckpointKind("tile CNN", (CNNS["released-tile-cnn"],)),
    CheckpointKind("tile CNN with its MLP", (CNNS["released-tile-cnn"], PAPER_MLP)),
    CheckpointKind("HASHI's tumour CNN", (CNNS["released-tumour-cnn"],)),
)


@dataclass(frozen=True, slots=True, eq=False)
class AuthorsFile:
    """A file that was read and checked.

    Attributes:
        path: The file.
        sha256: Of its bytes, in hexadecimal.
        kind: Of the file, by its tensors.
        tensors: Every tensor of the kind's networks, by name.
        remarks: On its format and its other contents, a line each.
    """

    path: Path
    sha256: str
    kind: CheckpointKind
    tensors: Mapping[str, NDArray[np.float32]]
    remarks: tuple[str, ...]

    @property
    def roles(self) -> tuple[Role, ...]:
        """Of its networks."""
        return tuple(spec.role for spec in self.kind.specs)

    @property
    def origin(self) -> str:
        """Origin of the weights, for the card."""
        return f"imported from {self.path.name} (SHA-256 {self.sha256})"


class _Unread:
    """Stands in for a numpy scalar, such as a best accuracy, that was saved beside the weights: nothing reads it."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


_NUMPY_SCALARS = [(_Unread, f"numpy{core}") for core in (".core.multiarray.scalar", "._core.multiarray.scalar")]
_NUMPY_SCALARS += [(_Unread, "numpy.dtype")]


def read_authors_file(file: Path, kinds: tuple[CheckpointKind, ...] = KINDS) -> AuthorsFile:
    """Open one of the authors' files, find out what it is, and check every tensor.

    Args:
        file: As `torch.save` wrote it, in its present or its older format.
        kinds: That are known.

    Raises:
        WeightsError: It cannot be read, asks for code to be run, or its tensors are not those of a kind; all
            problems of the tensors in one line.
    """
    try:
        sha256 = sha256_of(file)
    except OSError as error:
        raise WeightsError(f"{file}: cannot be read ({error.strerror}); give one of the authors' files") from None
    state, other = _state_dict(file, _opened(file))
    remarks = [f"left aside, no weights: {', '.join(other)}"] if other else []
    if state and all(name.startswith(_PARALLEL) for name in state):
        state = {name.removeprefix(_PARALLEL): value for name, value in state.items()}
        remarks.append(f"names had DataParallel's '{_PARALLEL}' before them")
    kind = recognised({name: tuple(getattr(value, "shape", ())) for name, value in state.items()}, kinds)
    if kind is None:
        known = "; ".join(f"{name} ({what})" for name, what in AUTHORS_NAMES.items())
        raise WeightsError(f"{file}: holds no tensor of the authors' networks; known are {known}")
    tensors, problems = _checked(state, kind.shapes)
    if problems:
        raise WeightsError(f"{file}: is no {kind.title} of the authors: {'; '.join(problems)}; get the file again")
    remarks += [f"stored as {kinds_}, taken as float32" for kinds_ in _other_precisions(state.values())]
    return AuthorsFile(file, sha256, kind, tensors, tuple(remarks))


def recognised(found: Mapping[str, Shape], kinds: Iterable[CheckpointKind] = KINDS) -> CheckpointKind | None:
    """The kind that most tensors agree with in name and shape, then in name; of equals the one that misses fewest.

    Returns:
        None where not even a name agrees.

    Example:
        >>> recognised(tensor_shapes(CNNS["released-tumour-cnn"])).title
        "HASHI's tumour CNN"
    """

    def agreement(kind: CheckpointKind) -> tuple[int, int, int]:
        wanted = kind.shapes
        return (
            len(found.items() & wanted.items()),
            len(found.keys() & wanted.keys()),
            -len(wanted.keys() - found.keys()),
        )

    best = max(kinds, key=agreement)
    return best if agreement(best)[1] else None


def import_authors_file(file: AuthorsFile, folder: Path) -> list[Card]:
    """Write the file's networks into `folder`, one folder a role, as safetensors and ONNX with a card.

    Several files fill one folder. What lies there of another file is left: a tile CNN and an MLP belong together.

    Returns:
        The cards, with the files' hashes.

    Raises:
        OutputError: A network of another origin lies where one of these would, or beside a tile CNN that is not its
            own; or the folder cannot be written.
    """
    _refuse_mixture(file, folder)
    settings = PRESETS[AUTHORS_PRESET]
    cards = []
    for spec in file.kind.specs:
        card = Card(
            spec,
            trained=True,
            notice=f"weights of the paper's authors, imported from {file.path.name}: not measured here",
            ranking=spec.ranking_of(settings.selection, settings.scoring) if isinstance(spec, AggregatorSpec) else None,
            training_data=_DATA[spec.role],
            training_licence=_LICENCE,
            recipe=f"{file.origin}; trained by the paper's authors (sections 3.2-4.2)",
            intended_use=f"{RESEARCH_USE}, with the preset {AUTHORS_PRESET}",
            limits=_LIMITS,
        )
        cards.append(save_weights(folder / spec.role, card, {name: file.tensors[name] for name in tensor_shapes(spec)}))
    return cards


def _opened(file: Path) -> object:
    """Content of the file, opened without running any of its code."""
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_NUMPY_SCALARS):  # type: ignore[arg-type]
            warnings.simplefilter("ignore")  # of old formats; what comes out is checked in full
            return torch.load(file, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        if code:
            raise WeightsError(
                f"{file}: is a pickle that wants to run code ({code[1]}) and was not opened; get the file again from "
                "its authors"
            ) from None
        raise WeightsError(
            f"{file}: is no whole file of tensors as torch saves them (damaged or cut short?); get the file again"
        ) from None


def _state_dict(file: Path, content: object) -> tuple[dict[str, object], list[str]]:
    """The named tensors of what was saved, and the names of everything beside them."""
    if not isinstance(content, Mapping):
        raise WeightsError(f"{file}: holds a {type(content).__name__}, no weights by name; give an authors' file")
    beside = content.get("state_dict")
    state = beside if isinstance(beside, Mapping) else content
    other = [str(name) for name in content if name != "state_dict"] if state is beside else []
    return {str(name): value for name, value in state.items()}, other


def _checked(
    state: Mapping[str, object], wanted: Mapping[str, Shape]
) -> tuple[dict[str, NDArray[np.float32]], list[str]]:
    """The tensors as float32 arrays, and every problem there is with them."""
    tensors: dict[str, NDArray[np.float32]] = {}
    problems = [f"{name} is missing" for name in wanted if name not in state]
    for name, value in state.items():
        if name not in wanted:
            problems.append(f"{name} is unknown")
        elif not (isinstance(value, Tensor) and _is_plain(value)):
            found = f"a {value.dtype} tensor" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            problems.append(f"{name} is {found} where plain floating-point numbers are wanted")
        elif tuple(value.shape) != wanted[name]:
            problems.append(f"{name} is {tuple(value.shape)} where {wanted[name]} is wanted")
        else:
            tensors[name] = value.detach().to(torch.float32).numpy()
            if not _is_finite(tensors[name]):
                problems.append(f"{name} holds a value that is no finite float32 number")
    return {name: tensors[name] for name in wanted if name in tensors}, problems


def _is_plain(tensor: Tensor) -> bool:
    """True for floating-point numbers that lie side by side."""
    return tensor.dtype in _FLOATS and tensor.layout == torch.strided and tensor.device.type == "cpu"


def _is_finite(tensor: NDArray[np.float32]) -> bool:
    """True where every number is finite, row by row: the largest tensor has half a gigabyte."""
    return all(bool(np.isfinite(row).all()) for row in tensor)


def _other_precisions(values: Iterable[Any]) -> list[str]:
    """The number formats other than float32, each once."""
    return sorted({str(value.dtype).removeprefix("torch.") for value in values} - {"float32"})


def _refuse_mixture(file: AuthorsFile, folder: Path) -> None:
    """Refuse to replace weights of another origin, or to part an MLP from its tile CNN."""
    roles: tuple[Role, ...] = file.roles
    if "tile_cnn" in roles and "aggregator" not in roles:
        roles = (*roles, "aggregator")
    for role in roles:
        there = folder / role
        if there.exists() and not ((there / CARD_FILE).is_file() and file.sha256 in read_card(there, role).recipe):
            raise OutputError(
                f"{there}: holds weights of another origin than {file.path.name}, which must not be mixed with them; "
                "choose another --out"
            )
