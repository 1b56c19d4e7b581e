"""Damage done to the bytes of a TIFF, from single bits to its directories, tables and texts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import tifffile

_OFFSETS_OR_COUNTS = frozenset({273, 279, 324, 325})
_DESCRIPTION = 270
_NUMBERS = (0, 1, 2, 3, 7, 8, 255, 256, 65_535, 65_536, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
_WORDS = (b"0", b"-1", b"1e308", b"nan", b"9" * 40, b"\xff\xfe", b"<", b'"', b"&#0;", b"0.0001", b"1000")


@dataclass(frozen=True, slots=True)
class _Tag:
    """Place of a tag in a file."""

    code: int
    entry: int
    value: int
    n_bytes: int
    n: int


@dataclass(frozen=True, slots=True)
class Sound:
    """A sound file, and where in it its tags are."""

    data: bytes
    tags: tuple[_Tag, ...]
    order: str
    big: bool

    @classmethod
    def of(cls, path: Path) -> "Sound":
        """Read a file."""
        tags = []
        with tifffile.TiffFile(path) as tiff:
            for page in tiff.pages:
                for each in (page, *(page.pages or ())):
                    for tag in each.aspage().tags.values():
                        n_bytes = int(tag.valuebytecount)
                        tags.append(_Tag(int(tag.code), int(tag.offset), int(tag.valueoffset), n_bytes, int(tag.count)))
            return cls(path.read_bytes(), tuple(tags), "little" if tiff.byteorder == "<" else "big", tiff.is_bigtiff)


Damage: TypeAlias = Callable[[Sound, np.random.Generator], bytes]


def _bits(sound: Sound, rng: np.random.Generator) -> bytes:
    data = bytearray(sound.data)
    for place in rng.integers(len(data), size=rng.integers(1, 64)):
        data[place] ^= 1 << int(rng.integers(8))
    return bytes(data)


def _overwritten(sound: Sound, rng: np.random.Generator) -> bytes:
    """A span of zeros, of noise, or of other bytes of the file."""
    data = bytearray(sound.data)
    n = int(2 ** rng.uniform(2, 14))
    start, other = (int(rng.integers(max(1, len(data) - n))) for _ in range(2))
    n = min(n, len(data) - start)
    fill = (bytes(n), rng.bytes(n), bytes(data[other : other + n]))[rng.integers(3)]
    data[start : start + len(fill)] = fill
    return bytes(data)


def _cut(sound: Sound, rng: np.random.Generator) -> bytes:
    return sound.data[: int(rng.integers(len(sound.data)))]


def _shifted(sound: Sound, rng: np.random.Generator) -> bytes:
    """Bytes put in or left out: all that follows moves."""
    place, n = int(rng.integers(len(sound.data))), int(2 ** rng.uniform(0, 10))
    if rng.integers(2):
        return sound.data[:place] + rng.bytes(n) + sound.data[place:]
    return sound.data[:place] + sound.data[place + n :]


def _directory(sound: Sound, rng: np.random.Generator) -> bytes:
    """Code, type, count or value of one entry of a directory."""
    tag = sound.tags[rng.integers(len(sound.tags))]
    wide = 8 if sound.big else 4
    first, width = ((0, 2), (2, 2), (4, wide), (4 + wide, wide))[rng.integers(4)]
    return _with_number(sound, tag.entry + first, width, rng)


def _table(sound: Sound, rng: np.random.Generator) -> bytes:
    """Offset or number of bytes of some compressed tiles."""
    tables = [tag for tag in sound.tags if tag.code in _OFFSETS_OR_COUNTS]
    tag = tables[rng.integers(len(tables))]
    width = tag.n_bytes // tag.n
    data = sound.data
    for _ in range(int(rng.integers(1, 4))):
        i, j = (tag.value + width * int(rng.integers(tag.n)) for _ in range(2))
        if rng.integers(2):
            data = data[:i] + data[j : j + width] + data[i + width :]
        else:
            data = _with_number(Sound(data, sound.tags, sound.order, sound.big), i, width, rng)
    return data


def _text(sound: Sound, rng: np.random.Generator) -> bytes:
    """A number of the description: Aperio's text, or OME-XML. Its length stays."""
    texts = [tag for tag in sound.tags if tag.code == _DESCRIPTION]
    if not texts:
        return _directory(sound, rng)
    tag = texts[rng.integers(len(texts))]
    text = sound.data[tag.value : tag.value + tag.n_bytes]
    digits = [i for i, c in enumerate(text) if chr(c).isdigit()] or [0]
    start = digits[rng.integers(len(digits))]
    word = _WORDS[rng.integers(len(_WORDS))] if rng.integers(2) else b"%d" % rng.integers(10)
    text = (text[:start] + word + text[start + len(word) :])[: tag.n_bytes]
    return sound.data[: tag.value] + text + sound.data[tag.value + len(text) :]


def _with_number(sound: Sound, place: int, width: int, rng: np.random.Generator) -> bytes:
    """The data with a telling number, or a slightly other one, in a place."""
    old = int.from_bytes(sound.data[place : place + width], sound.order)  # type: ignore[arg-type]
    telling = (*_NUMBERS, len(sound.data), 1 << 63)
    number = telling[rng.integers(len(telling))] if rng.integers(2) else old + int(rng.integers(-3, 4))
    new = (number % (1 << 8 * width)).to_bytes(width, sound.order)  # type: ignore[arg-type]
    return sound.data[:place] + new + sound.data[place + width :]


DAMAGES: Mapping[str, Damage] = MappingProxyType({
    "bits": _bits, "overwritten": _overwritten, "cut": _cut, "shifted": _shifted,
    "directory": _directory, "table": _table, "text": _text,
})  # fmt: skip
"""Kinds of damage by name."""
