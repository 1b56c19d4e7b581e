"""A file that several threads read at once, without a shared position."""

import os
from pathlib import Path


class FileBytes:
    """Bytes of an open file by offset; the system call takes the position, so that no lock is needed.

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
        """Let go of the file; closing twice does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
