"""What `run.json` says of any run: its command, the versions and the machine."""

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

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
