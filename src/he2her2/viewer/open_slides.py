"""Open slides of a viewer: few at a time, and each noticed when its file changes or is gone."""

import hashlib
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock

from he2her2.errors import He2Her2Error, MppError
from he2her2.files import url_of
from he2her2.slides import DeepZoom, open_slide
from he2her2.viewer.catalogue import ViewedSlide

_MAX_OPEN = 8
_ASSUMED_MPP = 0.25


class SlideGoneError(He2Her2Error):
    """A slide's file is no longer where it was."""


class SlideChangedError(He2Her2Error):
    """A slide's file is another one than the page was drawn of."""


@dataclass(slots=True)
class OpenedSlide:
    """An open slide.

    Attributes:
        zoom: Its tiles.
        version: Changes with the file.
        has_scale: Its µm per px are known; otherwise those of `zoom.slide` are made up.
        users: Requests that read from it now.
    """

    zoom: DeepZoom
    version: str
    has_scale: bool
    users: int = 0


class OpenSlides:
    """Slides that were looked at last, open; safe to use from several threads."""

    def __init__(self, max_open: int = _MAX_OPEN) -> None:
        self._max_open = max_open
        self._open: OrderedDict[str, OpenedSlide] = OrderedDict()
        self._lock = Lock()
        self._turns: defaultdict[str, Lock] = defaultdict(Lock)

    @contextmanager
    def lend(self, slide: ViewedSlide, version: str | None = None) -> Iterator[OpenedSlide]:
        """Yield a slide, open for as long as the block lasts.

        Args:
            slide: The slide.
            version: Of the file that is expected; None takes whatever is there.

        Raises:
            SlideGoneError: Its file is not there.
            SlideChangedError: Its file is not of that version.
            SlideError: It cannot be opened.
        """
        now = version_of_file(slide)
        if version is not None and version != now:
            raise SlideChangedError(f"{slide.slide_id}: its file was replaced while it was shown; load the page again")
        opened = self._taken(slide, now)
        if opened is None:
            with self._lock:
                turn = self._turns[slide.slide_id]
            with turn:  # a slow drive keeps only those waiting who want this slide, and it is opened once
                opened = self._taken(slide, now) or self._put(slide, _opened(slide, now))
        try:
            yield opened
        finally:
            with self._lock:
                opened.users -= 1
                if self._open.get(slide.slide_id) is not opened and not opened.users:
                    opened.zoom.slide.close()

    def _taken(self, slide: ViewedSlide, version: str) -> OpenedSlide | None:
        """The slide, with one user more, if it is open in that version."""
        with self._lock:
            opened = self._open.get(slide.slide_id)
            if opened is None or opened.version != version:
                return None
            self._open.move_to_end(slide.slide_id)
            opened.users += 1
            return opened

    def _put(self, slide: ViewedSlide, opened: OpenedSlide) -> OpenedSlide:
        """Keep a slide, with one user, in place of an earlier version of it."""
        opened.users += 1
        with self._lock:
            earlier = self._open.pop(slide.slide_id, None)
            if earlier is not None and not earlier.users:
                earlier.zoom.slide.close()
            self._open[slide.slide_id] = opened
            self._close_idle()
        return opened

    def close(self) -> None:
        """Close all; those that are read from close when that is done."""
        with self._lock:
            idle = [opened for opened in self._open.values() if not opened.users]
            self._open.clear()
        for opened in idle:
            opened.zoom.slide.close()

    def _close_idle(self) -> None:
        idle = [name for name, opened in self._open.items() if not opened.users]
        for name in idle[: max(0, len(self._open) - self._max_open)]:
            self._open.pop(name).zoom.slide.close()


def version_of_file(slide: ViewedSlide) -> str:
    """A name of the state of a slide's file, which changes when it is written or replaced.

    Raises:
        SlideGoneError: There is none.
    """
    try:
        stat = slide.path.stat()
    except OSError:
        if address := url_of(slide.path):
            found = f"it lies at {address}, from where nothing is read here; fetch it, and name its folder by --slides"
        else:
            name = slide.path.name or "(unknown)"
            found = f"its file {name} is gone; put it back, or name its new folder by --slides"
        raise SlideGoneError(f"{slide.slide_id}: {found}") from None
    parts = f"{stat.st_dev} {stat.st_ino} {stat.st_size} {stat.st_mtime_ns} {slide.mpp}"
    return hashlib.sha256(parts.encode()).hexdigest()[:12]


def _opened(slide: ViewedSlide, version: str) -> OpenedSlide:
    try:
        return OpenedSlide(DeepZoom(open_slide(slide.path, mpp=slide.mpp)), version, has_scale=True)
    except MppError:
        return OpenedSlide(DeepZoom(open_slide(slide.path, mpp=_ASSUMED_MPP)), version, has_scale=False)
