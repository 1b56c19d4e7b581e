"""HDF5 files of other programs: opened, checked and read so that a damaged or hostile one is one line."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from he2her2.errors import ExchangeError
from he2her2.files import atomic

_MOST_VALUES = 1 << 33
_FLOATS = (np.float16, np.float32, np.float64)


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open a file to read it.

    Raises:
        ExchangeError: It cannot be read, or what the block looks for is not in it.
    """
    try:
        with h5py.File(path) as file:
            yield file
    except FileNotFoundError:
        raise ExchangeError(str(path), "there is no such file", "check the folder") from None
    except (OSError, KeyError, AttributeError, IndexError, TypeError, ValueError, RuntimeError) as error:
        found = " ".join(str(error).split())
        raise ExchangeError(
            str(path), f"cannot be read as HDF5 of a known layout ({found})", "extract it again"
        ) from None


def read_dataset(file: h5py.File, name: str, *, columns: int | None = None) -> NDArray[Any]:
    """A two-dimensional dataset of numbers that lies in this file itself.

    Args:
        file: An open file.
        name: Of the dataset.
        columns: Its second length; any if None.

    Raises:
        ValueError: It is of another shape or kind.
    """
    link, data = file.get(name, getlink=True), file[name]
    if not isinstance(link, h5py.HardLink) or not isinstance(data, h5py.Dataset) or data.external or data.is_virtual:
        raise ValueError(f"{name} lies in another file")
    if data.ndim != 2 or data.dtype.kind not in "iuf" or (columns is not None and data.shape[1] < columns):
        raise ValueError(f"{name} is {data.shape} {data.dtype}")
    if data.size > _MOST_VALUES:
        raise ValueError(f"{name} has {data.size} values")
    values: NDArray[Any] = data[:]
    return values


def read_corners(file: h5py.File, name: str = "coords") -> NDArray[Any]:
    """(n, 2) corners: the first two columns, int64 where they are whole numbers."""
    values = read_dataset(file, name, columns=2)[:, :2]
    return values.astype(np.int64) if values.dtype.kind in "iu" else values


def read_features(file: h5py.File, name: str) -> NDArray[Any] | None:
    """(n, d) features of the file's own precision; None where there are none.

    CLAM and others write an axis of length one around a slide's features at times: it is dropped.
    """
    if name not in file:
        return None
    data = file[name]
    if isinstance(data, h5py.Dataset) and data.ndim == 3 and data.shape[0] == 1 and not data.external:
        values: NDArray[Any] = data[0]
    else:
        values = read_dataset(file, name)
    if values.dtype not in _FLOATS:
        raise ValueError(f"{name} is of {values.dtype}")
    return values


def write_hdf5(path: Path, fill: Callable[[h5py.File], None]) -> Path:
    """Write a file, whole or not at all.

    Raises:
        OutputError: It cannot be written.
    """
    with atomic(path) as draft, h5py.File(draft, "w", track_order=True) as file:
        fill(file)
    return path


def number(attributes: Mapping[str, Any], name: str) -> float | None:
    """A positive number among attributes; None where there is none, or the text None."""
    value = attributes.get(name)
    if isinstance(value, np.ndarray):
        value = value.reshape(-1)[0] if value.size else None
    try:
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return found if np.isfinite(found) and found > 0 else None


def text(attributes: Mapping[str, Any], name: str) -> str:
    """A text among attributes; empty where there is none."""
    value = attributes.get(name)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else "" if value is None else str(value)
