"""A file or folder appears whole under its name, or not at all."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from he2her2.errors import OutputError


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path` to write a file or folder to; on success it takes `path`'s name.

    Whatever stops the block (an error, Ctrl-C) leaves nothing behind. A folder replaces an existing folder.

    Raises:
        OutputError: The place cannot be written, or its disk is full.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "result.txt"
        >>> with atomic(target) as draft:
        ...     _ = draft.write_text("done")
        >>> target.read_text()
        'done'
    """
    # The ending stays: many writers choose their format by it.
    draft = path.with_name(f".{uuid4().hex[:8]}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        _replace(draft, path)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or error}); choose another place or free space"
        ) from error
    finally:
        _remove(draft)


def _replace(draft: Path, path: Path) -> None:
    if draft.is_dir() and path.is_dir():
        old = path.with_name(f".{uuid4().hex[:8]}.old.{path.name}")
        path.rename(old)
        try:
            draft.rename(path)
        except BaseException:
            old.rename(path)
            raise
        _remove(old)
    else:
        draft.replace(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):  # there may be nothing to remove, or nothing that can be
            path.unlink()
