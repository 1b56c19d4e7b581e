"""Bytes of a TIFF, and checks of its directories against the file's size before any library believes them.

tifffile logs what is cut off and goes on with the rest, so that a damaged slide would open with fewer levels, or pass
to OpenSlide with a message that does not help: `test_a_file_cut_off_anywhere`, `test_a_real_slide_cut_off` and
`test_a_header_that_claims_a_terapixel` fail without these checks.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from he2her2.geometry import Size

_MAX_AREA_PX = 10**11
"""More level-0 px than any scanner makes (a 100 000 x 80 000 px slide has 8 * 10**9)."""

_MAX_SIDE_PX = 4_000_000
"""More level-0 px on one side than any scanner makes."""

_MAX_TILE_PX = 1 << 24
"""Pixels of the largest tile that is read (4096 x 4096); a strip may be larger."""

_MAX_SHOWN = 120
_MAX_ROW_PX = 1 << 28
"""Pixels of the largest row of tiles that is read: a stream of tiles holds about one row."""

_MAX_DIRECTORIES = 10_000
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_SUBFILE_TYPE, _MASK = 254, 4
_WIDTH, _LENGTH, _TILE_WIDTH, _TILE_LENGTH = 256, 257, 322, 323
_OFFSETS, _SUB_DIRECTORIES, _HAMAMATSU = (273, 324), 330, 65420

_Tags: TypeAlias = dict[int, "_Tag"]


class FileBytes:
    """Bytes of an open file by offset, for several threads: there is no shared position, and no lock.

    Attributes:
        size: Bytes in the file when it was opened.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        self.size = os.fstat(self._fd).st_size

    def read(self, offset: int, n: int) -> bytes:
        """`n` bytes from `offset`; fewer at the file's end.

        Raises:
            ValueError: The file is closed.
        """
        if self._fd < 0:
            raise ValueError("the slide is closed")
        data = os.pread(self._fd, n, offset)
        while 0 < len(data) < n:
            more = os.pread(self._fd, n - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def close(self) -> None:
        """Close the file; closing twice does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class TiffDamageError(Exception):
    """A TIFF that is cut short or contradicts itself.

    Attributes:
        reason: The damage.
        remedy: Advice to the user.
    """

    def __init__(self, reason: str, remedy: str = "copy the file again") -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


class LayoutRefusedError(Exception):
    """A TIFF, or one image of it, that the TIFF reader does not fully understand; OpenSlide may."""


class PixelKindError(LayoutRefusedError):
    """An image whose pixels are no RGB of 8 bits, for any reader."""


@dataclass(frozen=True, slots=True)
class _Tag:
    code: int
    kind: int
    n: int
    data: bytes  # the entry's value field
    offset: int | None  # offset of the values, when they do not fit the entry


@dataclass(frozen=True, slots=True)
class _Dialect:
    """Byte order and widths of a classic or a big TIFF."""

    order: str
    big: bool

    def unpack(self, kind: str, data: bytes, n: int = 1) -> tuple[int, ...]:
        return struct.unpack_from(f"{self.order}{n}{kind}", data)

    @property
    def word(self) -> tuple[str, int]:
        return ("Q", 8) if self.big else ("I", 4)


def escaped(text: str) -> str:
    r"""Return text of a file for the terminal: short, with control characters as escapes.

    Example:
        >>> print(escaped("a\x1b[31m"))
        a\x1b[31m
    """
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:_MAX_SHOWN])
    return shown + ("..." if len(text) > _MAX_SHOWN else "")


def is_tiff(head: bytes) -> bool:
    """Check if a file that starts with `head` (8 bytes) is a classic or a big TIFF."""
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def check_directories(file: FileBytes) -> None:
    """Raise unless every directory, its values and its tile tables are possible in a file of this size.

    Raises:
        LayoutRefusedError: It is of Hamamatsu, whose directories lie elsewhere beyond 4 GB.
        TiffDamageError: Something lies beyond the file's end, or the pixels claimed are impossible.
    """
    if _is_hamamatsu(file):
        raise LayoutRefusedError("it is of the kind ndpi")
    for dialect, tags in _directories(file):
        for tag in tags.values():
            _check_inside(file, tag)
        _check_area(file, dialect, tags)


def largest_image(file: FileBytes) -> Size:
    """Return the width and height of the largest image, masks apart; (0, 0) where there is none.

    Raises:
        TiffDamageError: A directory lies beyond the file's end.
    """
    sizes = [Size(0, 0)]
    for dialect, tags in _directories(file):
        kind, w, h = (
            next(iter(_integers(file, dialect, tags.get(code))), 0) for code in (_SUBFILE_TYPE, _WIDTH, _LENGTH)
        )
        if not kind & _MASK:
            sizes.append(Size(w, h))
    return max(sizes, key=lambda size: size.w * size.h)


def _is_hamamatsu(file: FileBytes) -> bool:
    """Check if the offset of the first directory has 64 bits, in a TIFF of 32, and leads to Hamamatsu's tags."""
    head = file.read(0, 12)
    dialect = _Dialect("<", big=False)
    if len(head) < 12 or head[:4] != b"II*\0":
        return False
    (offset,) = dialect.unpack("Q", head[4:])
    try:
        return offset < file.size and _HAMAMATSU in _directory(file, dialect, offset)[0]
    except TiffDamageError:
        return False


def _directories(file: FileBytes) -> Iterator[tuple[_Dialect, _Tags]]:
    """Every directory and sub-directory once."""
    head = file.read(0, 16)
    if len(head) < 16:
        raise TiffDamageError(f"is cut short: it has {file.size} bytes")
    dialect = _Dialect("<" if head[:2] == b"II" else ">", big=head[2:4] in (b"+\0", b"\0+"))
    kind, _ = dialect.word
    waiting = [dialect.unpack(kind, head[8:] if dialect.big else head[4:])[0]]
    seen: set[int] = set()
    while waiting:
        offset = waiting.pop()
        if offset == 0 or offset in seen:
            continue
        seen.add(offset)
        if len(seen) > _MAX_DIRECTORIES:
            raise TiffDamageError(f"has more than {_MAX_DIRECTORIES} directories", "it is no slide; check the file")
        tags, following = _directory(file, dialect, offset)
        yield dialect, tags
        waiting += [following, *_integers(file, dialect, tags.get(_SUB_DIRECTORIES))]


def _directory(file: FileBytes, dialect: _Dialect, offset: int) -> tuple[_Tags, int]:
    """The tags of the directory at `offset`, and the offset of the next."""
    kind, width = dialect.word
    head = 8 if dialect.big else 2
    entry = 20 if dialect.big else 12
    start = file.read(offset, head)
    if len(start) == head:
        (n,) = dialect.unpack("Q" if dialect.big else "H", start)
        body = file.read(offset + head, min(n, 65_535) * entry + width)
        if n <= 65_535 and len(body) == n * entry + width:
            tags = {tag.code: tag for tag in _tags(dialect, body[:-width])}
            return tags, dialect.unpack(kind, body[-width:])[0]
    raise TiffDamageError(f"is cut short: its directory at byte {offset} lies beyond its end at {file.size}")


def _tags(dialect: _Dialect, entries: bytes) -> Iterator[_Tag]:
    word, width = dialect.word
    size = 4 + 2 * width
    for start in range(0, len(entries), size):
        code, kind = dialect.unpack("H", entries[start:], 2)
        (n,) = dialect.unpack(word, entries[start + 4 :])
        data = entries[start + 4 + width : start + size]
        outside = n * _TYPE_BYTES.get(kind, 1) > width
        yield _Tag(code, kind, n, data, dialect.unpack(word, data)[0] if outside else None)


def _check_inside(file: FileBytes, tag: _Tag) -> None:
    if tag.offset is not None and tag.offset + tag.n * _TYPE_BYTES.get(tag.kind, 1) > file.size:
        raise TiffDamageError(f"is cut short: the values of its tag {tag.code} lie beyond its end")


def _integers(file: FileBytes, dialect: _Dialect, tag: _Tag | None) -> tuple[int, ...]:
    """The values of an integer tag; none when it is absent."""
    if tag is None or tag.kind not in _INTEGERS:
        return ()
    n = min(tag.n, _MAX_DIRECTORIES)
    data = tag.data if tag.offset is None else file.read(tag.offset, n * _TYPE_BYTES[tag.kind])
    return dialect.unpack(_INTEGERS[tag.kind], data, n)


def _check_area(file: FileBytes, dialect: _Dialect, tags: _Tags) -> None:
    """Refuse sizes that no slide has, and tile tables that do not hold the tiles of the size claimed."""
    w, h, tile_w, tile_h = (
        next(iter(_integers(file, dialect, tags.get(code))), 0) for code in (_WIDTH, _LENGTH, _TILE_WIDTH, _TILE_LENGTH)
    )
    if w * h > _MAX_AREA_PX or max(w, h) > _MAX_SIDE_PX:
        raise TiffDamageError(f"claims {w} x {h} px, more than any slide has", "its header is damaged; copy it again")
    if tile_w * tile_h > _MAX_TILE_PX or (tile_w * tile_h and tile_h * w > _MAX_ROW_PX):
        reason = f"has tiles of {tile_w} x {tile_h} px, too large to read regions"
        raise TiffDamageError(reason, "convert it to a TIFF with tiles of 256 x 256 px")
    tables = [tags[code].n for code in _OFFSETS if code in tags]
    if tile_w and tile_h and tables and max(tables) < -(-w // tile_w) * -(-h // tile_h):
        reason = f"claims {w} x {h} px but its table lists {max(tables)} tiles of {tile_w} x {tile_h}"
        raise TiffDamageError(reason, "its header is damaged; copy it again")
