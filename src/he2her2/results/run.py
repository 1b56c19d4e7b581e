"""The folder of a run: what was run with what (`run.json`), and its tables of results and failures.

Prediction writes it and goes on in it; evaluation, reports and audits read it, checked at the door.
"""

import csv
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from he2her2 import __version__
from he2her2.config import Config
from he2her2.errors import EvaluationError, OutputError
from he2her2.files import atomic
from he2her2.labels import Her2Status, IhcScore
from he2her2.results.slide_folder import PREDICTION, SEGMENTATION, SlideFolders
from he2her2.results.slide_result import NetworkNote, SlideResult
from he2her2.results.tiles_h5 import ScoredTiles

RUN_FILE = "run.json"
PREDICTIONS_FILE = "predictions.csv"
FAILURES_FILE = "failures.csv"
LIBRARIES = ("he2her2", "numpy", "scipy", "scikit-image", "onnxruntime", "openslide-python", "tifffile", "simplejpeg")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a slide has no result: a row of `failures.csv`.

    Attributes:
        slide_id: Its name.
        path: Its file.
        stage: The step that failed, see `SlideError`.
        reason: What was found.
        remedy: What the user can do.
    """

    slide_id: str
    path: str
    stage: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.slide_id}: {self.reason}; {self.remedy}"


@checked(frozen=True, config=ConfigDict(extra="ignore"))
class RunDescription:
    """What `run.json` says of a run, as far as other rooms need it.

    Attributes:
        digest: SHA-256 of all that can change a result: settings, weights and what the user overrode.
        command: The command line.
        config: The settings, as plain values; `RunFolder.config` checks them.
        weights: The networks.
        versions: Of Python and the libraries.
    """

    digest: str = ""
    command: tuple[str, ...] = ()
    config: dict[str, Any] | None = None
    weights: tuple[NetworkNote, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)


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
