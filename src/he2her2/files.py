"""Files of ours: written whole or not at all, as text or JSON; read back; hashed.

Text is UTF-8 with the line ends that it has, on every system.
"""

import codecs
import hashlib
import json
import os
import re
import shutil
import time
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, is_dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from he2her2.errors import OutputError, few_of, plainly
from he2her2.machine import process_space

if TYPE_CHECKING:
    from pydantic import ValidationError  # for its type: pydantic is a fourth of a command's start

_SPACE = process_space()
_DRAFT = re.compile(r"\.draft-(?P<space>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{8}\.")
_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]+):/+(?=[^/])")
_DAY_S = 86_400
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_LARGEST_RECORD = 1 << 26
_HEAD = 1 << 12  # bytes of a file that are looked at


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write a file or folder to; on success it is renamed to `path`.

    Whatever stops the block (an error, Ctrl-C) leaves nothing behind. A folder replaces an existing folder.

    Raises:
        OutputError: `path` cannot be written, or its disk is full.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "result.txt"
        >>> with atomic(target) as draft:
        ...     _ = draft.write_text("done")
        >>> target.read_text()
        'done'
    """
    # The ending stays: many writers choose their format by it.
    draft = draft_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep_once(path.parent)
        yield draft
        _replace(draft, path)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or error}); choose another place or free space"
        ) from error
    finally:
        _remove(draft)


def sweep_drafts(folder: Path) -> None:
    """Remove drafts in a folder that a process left when it was killed; those of living processes stay.

    A draft of another machine or container, whose processes cannot be seen from here, counts as left after a day.
    """
    drafts = [(path, found) for path in folder.glob(".draft-*") if (found := _DRAFT.match(path.name))]
    for path, found in drafts:
        if not process_is_alive(int(found["pid"])) if found["space"] == _SPACE else _age_s(path) > _DAY_S:
            _remove(path)


@lru_cache(maxsize=64)
def _sweep_once(folder: Path) -> None:
    """`sweep_drafts` the first time that this process writes there; a folder of many files is not listed for each."""
    sweep_drafts(folder)


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:  # its process has just given it its name
        return 0.0


def draft_of(path: Path) -> Path:
    """A name beside `path` for a file of this process, which `sweep_drafts` removes once the process is gone."""
    return path.with_name(f".draft-{_SPACE}-{os.getpid()}-{uuid4().hex[:8]}.{path.name}")


def process_is_alive(pid: int) -> bool:
    """True if a process of this machine has the number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def write_text(path: Path, text: str) -> None:
    """Write a text file.

    Raises:
        OutputError: It cannot be written.
    """
    with atomic(path) as draft:
        draft.write_text(text, "utf-8", errors="backslashreplace", newline="")  # a file's name need not be Unicode


def create_text(path: Path, text: str) -> bool:
    """Create a text file with its text, which of several processes only one can do; False where the file exists.

    Raises:
        OSError: It cannot be written.
    """
    draft = draft_of(path)
    try:
        draft.write_text(text, "utf-8")
        try:
            os.link(draft, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            path.touch(exist_ok=False)
            draft.replace(path)
    except FileExistsError:
        return False
    finally:
        _remove(draft)
    return True


def json_text(value: object, *, ascii_only: bool = False, allow_nan: bool = True) -> str:
    r"""Return `value` as indented JSON, with a line end.

    Args:
        value: Plain data, or a dataclass of it.
        ascii_only: Write other characters as escapes; for names of files, which need not be valid Unicode.
        allow_nan: Write NaN and infinity, which are no JSON; False refuses them.

    Example:
        >>> json_text({"mpp": 0.5})
        '{\n  "mpp": 0.5\n}\n'
    """
    return json.dumps(_plain(value), indent=2, ensure_ascii=ascii_only, allow_nan=allow_nan) + "\n"


def write_json(path: Path, value: object, *, ascii_only: bool = False, allow_nan: bool = True) -> None:
    """Write `value` as JSON, as `json_text` gives it.

    Raises:
        OutputError: It cannot be written.
    """
    write_text(path, json_text(value, ascii_only=ascii_only, allow_nan=allow_nan))


def read_json(path: Path) -> dict[str, Any]:
    """Read the JSON object in a file.

    Raises:
        OSError: The file cannot be read.
        ValueError: It holds no JSON, or JSON that is no object.
    """
    try:
        found = json.loads(read_record(path))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("no JSON object")  # noqa: TRY004  # of the file's content, as a JSONDecodeError is
    return found


def read_toml(path: Path) -> dict[str, Any]:
    """Read the settings in a TOML file.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no TOML, or no text.
    """
    try:
        return tomllib.loads(text_of(path.read_bytes()))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_record(path: Path) -> str:
    """Read the text of a small file of ours.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no text, larger than any such file is, or a device or pipe, which may never end.
    """
    n_bytes = path.stat().st_size
    if n_bytes > _LARGEST_RECORD or not (path.is_file() or path.is_dir()):
        raise ValueError(f"is no ordinary file of at most {_LARGEST_RECORD >> 20} MB, as all such files are")
    return text_of(path.read_bytes())


def text_of(content: bytes) -> str:
    """Text of a file's bytes, with line ends of one kind: in UTF-8, or in UTF-16 where its byte order mark says so.

    Notepad and PowerShell write such marks.

    Raises:
        UnicodeDecodeError: It is no such text.
    """
    text = content.decode(next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8"))
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def problems_in_words(error: "ValidationError") -> str:
    """The first problems of a record that pydantic refused, on one line."""
    words = [f"{'.'.join(map(str, one['loc'])):.80}: {plainly(one['msg']):.200}" for one in error.errors()]
    return few_of(words, between="; ")


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(*parts: object) -> str:
    """Return the SHA-256 of plain data and dataclasses, in hexadecimal.

    Example:
        >>> digest("weights", {"a": 1, "b": 2}) == digest("weights", {"b": 2, "a": 1})
        True
    """
    return hashlib.sha256(json.dumps([_plain(part) for part in parts], sort_keys=True).encode()).hexdigest()


def url_of(path: Path | str) -> str | None:
    """The address that a path stands for; None where it is one of this machine.

    `Path` makes one slash of two, so the address of a slide is kept as a path like any other.

    Example:
        >>> url_of(Path("s3://bucket/a.svs")), url_of(Path("C:/a.svs")), url_of("a.svs")
        ('s3://bucket/a.svs', None, None)
    """
    found = _URL.match(str(path))
    return None if found is None else f"{found['scheme']}://{str(path)[found.end() :]}"


def file_identity(path: Path) -> object:
    """Key of a file: the same by any name or link."""
    with suppress(OSError):
        stat = path.stat()
        return stat.st_dev, stat.st_ino
    return url_of(path) or os.path.normpath(path.absolute())


def check_output_file(out: Path, inputs: Iterable[Path] = ()) -> None:
    """Raise, before any work, unless a text file may be written as `out`.

    Args:
        out: The file; one that is there is replaced if it is text.
        inputs: Files that the work reads.

    Raises:
        OutputError: It is a folder, one of the inputs, or a file of another kind, such as a slide.
    """
    if out.is_dir():
        raise OutputError(f"{out}: is a folder; give a file as --out")
    check_not_read(out, inputs)
    _require_text(out)
    check_writable(out.parent)


def check_not_read(out: Path, inputs: Iterable[Path]) -> None:
    """Raise `OutputError` if a file that would be written is one of those that the work reads, by any name or link."""
    if out.exists() and file_identity(out) in map(file_identity, inputs):
        raise OutputError(f"{out}: is read by this command and is not replaced; choose another --out")


def _require_text(path: Path) -> None:
    """Raise if a path is a file that is no text, which a table or a page would replace."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:  # none there, or none of ours to judge
        return
    if b"\0" in head:
        raise OutputError(f"{path}: is a file of another kind and is not replaced; choose another --out")


def check_writable(folder: Path) -> None:
    """Raise, before any work, unless files can be written into `folder`; it need not exist yet.

    Raises:
        OutputError: The folder is a file, or nothing can be written there.
    """
    parent = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not parent.is_dir():
        raise OutputError(f"{folder}: {parent} is a file; choose another --out")
    try:
        with TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise OutputError(f"{folder}: {parent} cannot be written ({error.strerror}); choose another --out") from None


def _plain(value: object) -> object:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _replace(draft: Path, path: Path) -> None:
    """Give a draft its name; several processes may do so at once, and the last one stays."""
    while draft.is_dir() and path.is_dir():
        old = draft_of(path)
        with suppress(FileNotFoundError):  # another process has just taken it away
            path.rename(old)
        try:
            draft.rename(path)
        except OSError:
            if path.is_dir() and any(path.iterdir()):  # another process has just put its own there
                continue
            old.rename(path)
            raise
        except BaseException:
            old.rename(path)
            raise
        finally:
            _remove(old)
        return
    draft.replace(path)


def _remove(path: Path) -> None:
    if os.path.isdir(path):  # noqa: PTH112  (`Path.is_dir` raises for a name that is too long)
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):  # there may be nothing to remove, or nothing that can be
            path.unlink()
