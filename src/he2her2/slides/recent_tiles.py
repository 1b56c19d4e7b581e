"""Decoded tiles that were used last, in bounded memory."""

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock

from he2her2.geometry import Rgb


class RecentTiles:
    """Decoded tiles that were used last, up to a number of bytes; safe to use from several threads.

    A region that straddles compressed tiles shares them with its neighbours.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._tiles: OrderedDict[Hashable, Rgb] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable) -> Rgb | None:
        """A tile, which nobody may change; None where it is not kept."""
        with self._lock:
            pixels = self._tiles.get(key)
            if pixels is not None:
                self._tiles.move_to_end(key)
        return pixels

    def put(self, key: Hashable, pixels: Rgb) -> None:
        """Keep a tile, in place of those that were not used for longest; one larger than a quarter of all is not."""
        if 4 * pixels.nbytes > self._max_bytes:
            return
        with self._lock:
            if key in self._tiles:
                return
            self._tiles[key] = pixels
            self._bytes += pixels.nbytes
            while self._bytes > self._max_bytes:
                self._bytes -= self._tiles.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._tiles.clear()
            self._bytes = 0
