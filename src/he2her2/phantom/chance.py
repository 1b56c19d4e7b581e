"""Random numbers by position: the same place of the same slide gives the same draw, in whatever order it is drawn.

A counter-based generator (the finaliser of SplitMix64; Steele, Lea & Flood, 2014) over lattice coordinates, so that any
region of a slide can be drawn alone, by any thread, and still meets its neighbours without a seam.
"""

import hashlib
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[Any]
"""Real numbers, float32 wherever pixels are meant."""

Hashes: TypeAlias = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def key_of(*parts: int | str) -> int:
    """A 64-bit key that names one purpose of one slide.

    Example:
        >>> key_of(1, "nests") == key_of(1, "nests"), key_of(1, "nests") == key_of(2, "nests")
        (True, False)
    """
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def lattice_hashes(key: int, i: NDArray[Any], j: NDArray[Any]) -> Hashes:
    """A hash of every lattice point; `i` and `j` broadcast."""
    with np.errstate(over="ignore"):
        h = _mix(np.uint64(key) + np.asarray(i, np.int64).astype(np.uint64) * _GOLDEN)
        hashes: Hashes = _mix(h ^ (np.asarray(j, np.int64).astype(np.uint64) * _MIX_2 + _GOLDEN))
    return hashes


def uniform(hashes: Hashes, stream: int) -> Floats:
    """A number in [0, 1) of each hash; every `stream` is independent of the others."""
    with np.errstate(over="ignore"):
        mixed = _mix(hashes + np.uint64(stream + 1) * _GOLDEN)
    share: Floats = (mixed >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
    return share


def normal(hashes: Hashes, stream: int) -> Floats:
    """A nearly normal number (mean 0, sd 1, within ±3.5) of each hash: the sum of four uniforms."""
    total = sum((uniform(hashes, 1000 + 4 * stream + k) for k in range(4)), np.float32(0))
    return ((np.asarray(total) - 2.0) * np.float32(np.sqrt(3.0))).astype(np.float32)


def _mix(z: Any) -> Any:  # noqa: ANN401  (uint64 scalar or array)
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))
