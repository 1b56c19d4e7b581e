"""Slides behind addresses (s3, gs, https, ...): found by fsspec, and fetched to a bounded place on this machine."""

import errno
import hashlib
import re
import shutil
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from threading import Event, Thread
from time import sleep
from typing import Any

from he2her2.cohort.tasks import RemoteFile, SlideTask
from he2her2.errors import He2Her2Error, SlideOpenError
from he2her2.files import atomic, digest, sha256_of, url_of
from he2her2.manifest import Manifest, raise_problems, write_manifest
from he2her2.results import FileStamp
from he2her2.slides import SLIDE_ENDINGS
from he2her2.timing import Progress, silent

_SEVERAL_FILES = frozenset({".mrxs", ".dcm", ".vms", ".vmu"})
_CHANGED = (
    "LastModified", "mtime", "updated", "ETag", "lastmodified", "modified", "modificationtime", "lastwritetime",
    "modify", "created", "etag", "contentmd5",
)  # fmt: skip
"""Time of change, or what stands for it, as file systems call it; those in lower case however they write it, such as
`Last-Modified` or `last_modified`. The mark of a web server comes before its time, which tells seconds."""

_TRIES = 3
_PAUSE_S = 1.0
_AT_ONCE = 4
_ASKED_AT_ONCE = 16
_LOOK_S = 0.2
_GB = 1e9
_SHORT = 12
_OF_THE_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG})


def is_pattern(path: Path | str) -> bool:
    """True if a path or an address stands for all that match it."""
    return bool(frozenset("*?[") & set(str(path)))


def urls_of(url: str) -> list[str]:
    """The slides that an address stands for: one, those of a folder, or those that match a pattern.

    Raises:
        He2Her2Error: It cannot be read, or holds no slides.
    """
    files, path = _open(url)
    if Path(path).suffix.lower() in SLIDE_ENDINGS and not is_pattern(path):
        return [url]
    try:
        found = files.glob(path) if is_pattern(path) else files.find(path)
    except Exception as error:  # noqa: BLE001  # each file system has its own
        raise He2Her2Error(f"{url}: cannot be listed ({_in_words(error)}); check the address and your rights") from None
    if not found:
        raise He2Her2Error(f"{url}: nothing can be listed there; check the address and your rights")
    slides = sorted(files.unstrip_protocol(one) for one in found if Path(one).suffix.lower() in SLIDE_ENDINGS)
    if not slides:
        endings = ", ".join(sorted(SLIDE_ENDINGS))
        raise He2Her2Error(f"{url}: no slides among its {len(found)} files; slides end in {endings}")
    return slides


def with_stamps(tasks: Sequence[SlideTask]) -> tuple[SlideTask, ...]:
    """Tasks whose remote files are asked for size and time of change, several at once; others as they are."""
    stop = Event()
    pool = ThreadPoolExecutor(_ASKED_AT_ONCE)
    try:
        return tuple(pool.map(partial(_with_stamp, stop=stop), tasks))
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _with_stamp(task: SlideTask, stop: Event) -> SlideTask:
    url = url_of(task.path)
    return task if url is None else replace(task, remote=RemoteFile(url, _stamp(url, stop)))


def _stamp(url: str, stop: Event | None = None) -> FileStamp | None:
    """Size and time of change of a file, or what stands for the time; None where it cannot be reached."""
    files, path = _open(url)
    try:
        facts = _until_stopped(partial(files.info, path), stop)
    except Exception:  # noqa: BLE001  # fetching it will say why
        return None
    told = {re.sub(r"[-_]", "", str(name)).lower(): value for name, value in facts.items()} | facts
    changed = next((told[name] for name in _CHANGED if told.get(name)), "")
    if isinstance(changed, datetime):
        return FileStamp(int(facts.get("size") or 0), int(changed.timestamp() * 1e9))
    number = int.from_bytes(hashlib.sha256(str(changed).encode()).digest()[:7])
    return FileStamp(int(facts.get("size") or 0), number if changed else 0)


@contextmanager
def on_this_machine(task: SlideTask, folder: Path) -> Iterator[SlideTask]:
    """The task with its file on this machine, for as long as the block lasts.

    Args:
        task: Of a local file, which is given as it is, or of a remote one.
        folder: Takes the file.

    Raises:
        SlideOpenError: The file cannot be fetched.
    """
    if url_of(task.path) is None:
        yield task
        return
    try:
        yield fetch(task, folder / task.slide_id)
    finally:
        shutil.rmtree(folder / task.slide_id, ignore_errors=True)


def fetch(task: SlideTask, folder: Path, stop: Event | None = None) -> SlideTask:
    """Fetch a remote file to a folder of its own; gives the task with its file there.

    Args:
        task: Of a remote file.
        folder: Takes it.
        stop: Ends the fetching once it is set.

    Raises:
        SlideOpenError: It cannot be fetched, or not all of it.
        OutputError: It cannot be written there.
    """
    url = url_of(task.path)
    assert url is not None
    remote = task.remote or RemoteFile(url, _stamp(url))
    local = folder / _name_of(task)
    if local.suffix.lower() in _SEVERAL_FILES:
        found = f"{url}: a slide of several files cannot be fetched"
        raise SlideOpenError(task.slide_id, found, "copy it to a disk, or convert it to one file")
    reason = ""
    for k in range(_TRIES):
        if k:
            sleep(k * _PAUSE_S)
        try:
            with atomic(local) as draft:
                _download(remote, draft, stop)
        except _FetchError as error:
            reason = str(error)
            if error.is_final:
                break
        else:
            return replace(task, path=local, remote=remote)
    remedy = "check the address, your rights and the network; --retry-failed tries it again"
    raise SlideOpenError(task.slide_id, f"{url}: cannot be fetched ({reason})", remedy)


def fetch_manifest(manifest: Manifest, folder: Path, progress: Progress = silent) -> Manifest:
    """The manifest with all its remote slides on this machine, for work that reads them again and again.

    Args:
        manifest: The manifest; one without remote slides is given as it is.
        folder: Takes slides and new manifests, of several manifests too: each slide below a name made of its address,
            where it is not fetched again, and each manifest below one made of its text.
        progress: Called after each slide.

    Raises:
        ManifestError: Some cannot be fetched.
        OutputError: They cannot be written there.
    """
    tasks = with_stamps([SlideTask.of_row(row) for row in manifest.rows])
    if not any(task.remote for task in tasks):
        return manifest
    rows, problems = [], list(manifest.problems)
    for k, (row, task) in enumerate(zip(manifest.rows, tasks, strict=True), start=1):
        try:
            rows.append(row if task.remote is None else replace(row, path=_fetched(task, task.remote, folder)))
        except SlideOpenError as error:
            problems.append(f"line {row.line}: {error}")
        progress("fetching slides", k, len(tasks))
    raise_problems(manifest, problems)
    file = folder / sha256_of(manifest.path)[:_SHORT] / f"{manifest.path.stem}.csv"
    fetched = replace(manifest, path=file, rows=tuple(rows))
    write_manifest(fetched)
    return fetched


def _fetched(task: SlideTask, remote: RemoteFile, folder: Path) -> Path:
    """The file of a remote slide below a name made of its address, fetched unless it is there."""
    place = folder / digest(remote.url)[:_SHORT]
    local = place / _name_of(task)
    there = local.exists() and local.stat().st_size == _bytes_of(task)
    return local if there else fetch(task, place).path


def _name_of(task: SlideTask) -> str:
    """Name of a remote file, without the query of its address."""
    return task.path.name.partition("?")[0]


class _FetchError(Exception):
    """A file cannot be fetched; there is no use in another try where `is_final`."""

    def __init__(self, reason: str, *, is_final: bool = False) -> None:
        super().__init__(reason)
        self.is_final = is_final


def _download(remote: RemoteFile, draft: Path, stop: Event | None) -> None:
    """Fetch all of a file, or raise."""
    from fsspec.callbacks import Callback  # noqa: PLC0415  # an extra

    class Watched(Callback):  # type: ignore[misc]  # fsspec is not typed
        """Ends what it watches."""

        def relative_update(self, inc: int = 1) -> None:
            super().relative_update(inc)
            if stop is not None and stop.is_set():
                raise _FetchError("stopped", is_final=True)

    files, path = _open(remote.url)
    try:
        _until_stopped(partial(files.get_file, path, str(draft), callback=Watched()), stop)
    except _FetchError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
            raise
        raise _FetchError(_in_words(error), is_final=isinstance(error, FileNotFoundError | PermissionError)) from None
    n_bytes = draft.stat().st_size
    if remote.stamp is not None and remote.stamp.bytes not in (0, n_bytes):
        raise _FetchError(f"only {n_bytes} of its {remote.stamp.bytes} bytes came")


def _until_stopped(do: Callable[[], Any], stop: Event | None) -> Any:  # noqa: ANN401  # whatever is done
    """Do something in a thread that is left behind once `stop` is set: a silent server is waited for for minutes.

    Raises:
        _FetchError: It is stopped.
    """
    done: Future[Any] = Future()

    def work() -> None:
        try:
            done.set_result(do())
        except BaseException as error:  # noqa: BLE001  # raised by who waits
            done.set_exception(error)

    Thread(target=work, name="remote", daemon=True).start()
    while not wait([done], _LOOK_S).done:
        if stop is not None and stop.is_set():
            raise _FetchError("stopped", is_final=True)
    return done.result()


class Staging:
    """Remote slides on this machine: fetched ahead of the work, deleted after it, never more than a limit."""

    def __init__(self, folder: Path, limit_gb: float) -> None:
        """Begin without any.

        Args:
            folder: Takes them, each in a folder of its name.
            limit_gb: Size of all of them together; a single slide may be larger.
        """
        self._folder, self._limit = folder, limit_gb * _GB
        self._largest = 0
        self._sizes: dict[str, int] = {}
        self._fetching: dict[Future[SlideTask], SlideTask] = {}
        self._stop = Event()
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="fetch")

    def __len__(self) -> int:
        """Slides that are here or on their way."""
        return len(self._sizes)

    def has_room(self, task: SlideTask) -> bool:
        """True if a slide may be fetched now; of unknown size, once another has shown how large they are."""
        n_bytes = self._bytes_of(task)
        return not self._sizes or (n_bytes > 0 and sum(self._sizes.values()) + n_bytes <= self._limit)

    def _bytes_of(self, task: SlideTask) -> int:
        """Size of a slide; where its server does not say, of the largest that has come."""
        return _bytes_of(task) or self._largest

    def begin(self, task: SlideTask) -> None:
        """Begin to fetch a slide."""
        self._sizes[task.slide_id] = self._bytes_of(task)
        self._fetching[self._pool.submit(fetch, task, self._folder / task.slide_id, self._stop)] = task

    def arrived(self) -> Iterator[tuple[SlideTask, SlideOpenError | None]]:
        """Slides that are here now, and those that cannot be fetched.

        Raises:
            OutputError: The place for them is full.
        """
        for future in [future for future in self._fetching if future.done()]:
            task = self._fetching.pop(future)
            try:
                local = future.result()
            except SlideOpenError as error:
                self.drop(task.slide_id)
                yield task, error
            else:
                self._sizes[task.slide_id] = local.path.stat().st_size
                self._largest = max(self._largest, self._sizes[task.slide_id])
                yield local, None

    def drop(self, slide_id: str) -> None:
        """Delete a slide that has ended."""
        if self._sizes.pop(slide_id, None) is not None:
            shutil.rmtree(self._folder / slide_id, ignore_errors=True)

    def close(self) -> None:
        """Delete all of them."""
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)
        for slide_id in list(self._sizes):
            self.drop(slide_id)
        with suppress(OSError):  # others have slides there
            self._folder.rmdir()


def sweep_staged(folder: Path, claimed: Callable[[], Container[str]]) -> None:
    """Delete slides that a killed process left, but for those that others work on.

    Args:
        folder: Holds them.
        claimed: Names of slides that are being worked on; asked after the folder was listed, as claims come first.
    """
    places = list(folder.glob("*"))
    names = claimed()
    for place in places:
        if place.name not in names:
            shutil.rmtree(place, ignore_errors=True)


def _bytes_of(task: SlideTask) -> int:
    return 0 if task.remote is None or task.remote.stamp is None else task.remote.stamp.bytes


def _open(url: str) -> tuple[Any, str]:
    """The file system of an address, and its path there.

    Raises:
        He2Her2Error: It is of an unknown kind, or its library is not installed.
    """
    try:
        import fsspec  # noqa: PLC0415  # an extra
    except ImportError:
        raise He2Her2Error(f"{url}: needs fsspec: pip install 'he2her2[remote]'") from None
    try:
        files, path = fsspec.url_to_fs(url, **_options(url))
    except (ImportError, ValueError) as error:
        raise He2Her2Error(f"{url}: {_in_words(error)}; pip install 'he2her2[remote]'") from None
    return files, str(path)


def _options(url: str) -> dict[str, Any]:
    """Options of a file system: aiohttp would end every transfer after five minutes, whatever comes in."""
    if not url.startswith(("http:", "https:")):
        return {}
    from aiohttp import ClientTimeout  # noqa: PLC0415  # an extra

    return {"client_kwargs": {"timeout": ClientTimeout(total=None, sock_connect=30, sock_read=120)}}


def _in_words(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
