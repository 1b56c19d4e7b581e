"""What `run.json` says of any run: its command, the versions and the machine; and whether its folder can be written."""

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from he2her2.errors import OutputError

LIBRARIES = ("he2her2", "numpy", "scipy", "scikit-image", "onnxruntime", "openslide-python", "tifffile", "simplejpeg")


def describe_environment(command: Sequence[str], libraries: Sequence[str] = LIBRARIES) -> dict[str, Any]:
    """The command line, when it began, the versions of the libraries that matter and the machine.

    Example:
        >>> sorted(describe_environment(["he2her2", "demo"]))
        ['command', 'hardware', 'started', 'versions']
    """
    return {
        "command": list(command),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in libraries},
        "hardware": {"system": platform.platform(), "machine": platform.machine(), "cores": os.cpu_count()},
    }


def check_writable(folder: Path) -> None:
    """Refuse before any work what could not be written after it.

    Raises:
        OutputError: The folder is a file, or nothing can be written there.
    """
    place = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not place.is_dir():
        raise OutputError(f"{folder}: {place} is a file; choose another --out")
    try:
        with TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise OutputError(f"{folder}: {place} cannot be written ({error.strerror}); choose another --out") from None
