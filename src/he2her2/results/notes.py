"""Notes in a result on what took part in it: networks, stored rules, time, program and machine."""

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, field
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from typing import Any, Self

from pydantic import ConfigDict, NonNegativeFloat, NonNegativeInt
from pydantic.dataclasses import dataclass

from he2her2.models import Card
from he2her2.rules import OperatingPoint, PatientRule, Triage
from he2her2.timing import StreamTimes, Watch

LIBRARIES = ("he2her2", "numpy", "scipy", "scikit-image", "onnxruntime", "openslide-python", "tifffile", "simplejpeg")

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


def describe_environment(command: Sequence[str], libraries: Sequence[str] = LIBRARIES) -> dict[str, Any]:
    """The command line, when it began, the versions of the libraries that matter and the machine.

    Example:
        >>> sorted(describe_environment(["he2her2", "demo"]))
        ['command', 'hardware', 'started', 'versions']
    """
    return {"command": list(command), "started": _now(), "versions": _versions(*libraries), "hardware": _hardware()}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@cache
def _versions(*libraries: str) -> dict[str, str]:
    return {"python": platform.python_version()} | {name: version(name) for name in libraries}


@cache
def _hardware() -> dict[str, Any]:
    return {"system": platform.platform(), "machine": platform.machine(), "cores": os.cpu_count()}


@dataclass(frozen=True, config=_STRICT)
class ProvenanceNote:
    """Time, program and machine of a result: a later command on the run may have other libraries, elsewhere.

    Attributes:
        ended: When, in UTC.
        versions: Of Python and the libraries.
        hardware: The machine.
    """

    ended: str
    versions: dict[str, str]
    hardware: dict[str, str | int | None]

    @classmethod
    def here(cls) -> Self:
        """The note of a result that is made now by this process."""
        return cls(_now(), _versions(*LIBRARIES), _hardware())


@dataclass(frozen=True, config=_STRICT)
class NetworkNote:
    """A network that took part.

    Attributes:
        name: Its name.
        trained: False for weights drawn from a seed.
        seed: Of untrained weights.
        sha256: Of each of its files.
        threshold: Of its card; none where it states none.
        use_sha256: Of what its card says of its input, its layers and how it ranks tiles; empty in older records.
    """

    name: str
    trained: bool
    seed: NonNegativeInt | None
    sha256: dict[str, str]
    threshold: float | None = None
    use_sha256: str = ""

    @classmethod
    def of(cls, card: Card) -> Self:
        """The note of a card's network."""
        return cls(**card.summary)


@dataclass(frozen=True, config=_STRICT)
class OperatingPointNote:
    """The operating point that decided, see `rules.OperatingPoint`."""

    budget: float
    confidence: float
    n_positive: NonNegativeInt
    chosen_on: str
    patient_rule: PatientRule | None = None

    @classmethod
    def of(cls, point: OperatingPoint) -> Self:
        """The note of an operating point."""
        return cls(point.budget, point.confidence, point.n_positive, point.chosen_on, point.patient_rule)


@dataclass(frozen=True, config=_STRICT)
class TriageNote:
    """The triage arm of the slide and the triage that put it there, see `rules.Triage`."""

    arm: str
    rule_out_below: float
    rule_in_from: float
    miss_budget: float
    false_budget: float
    chosen_on: str
    patient_rule: PatientRule | None = None

    @classmethod
    def of(cls, triage: Triage, probability: float) -> Self:
        """The note of a triage and of the arm that it puts a probability in."""
        return cls(
            str(triage.arm(probability)),
            triage.rule_out_below,
            triage.rule_in_from,
            triage.miss_budget,
            triage.false_budget,
            triage.chosen_on,
            triage.patient_rule,
        )


@dataclass(frozen=True, config=_STRICT)
class StreamNote:
    """The threads of a stream of tiles, see `timing.StreamTimes`; seconds of all threads together.

    Attributes:
        tiles: Tiles that were read.
        wall: Seconds on the clock.
        available: Seconds that the threads had.
        reading: Decoding.
        waiting: For the disk, or for a core.
        applying: In the network.
        tiles_per_s: Tiles a second on the clock.
        limited_by: Kind of work that took most of the time.
    """

    tiles: NonNegativeInt
    wall: NonNegativeFloat
    available: NonNegativeFloat
    reading: NonNegativeFloat
    waiting: NonNegativeFloat
    applying: NonNegativeFloat
    tiles_per_s: NonNegativeFloat
    limited_by: str

    @classmethod
    def of(cls, times: StreamTimes) -> Self:
        """The note of a stream."""
        seconds = {name: round(value, 3) for name, value in asdict(times).items()}
        return cls(**seconds, tiles_per_s=round(times.rate, 1), limited_by=times.limit)

    @property
    def times(self) -> StreamTimes:
        """The times of the stream."""
        return StreamTimes(self.tiles, self.wall, self.available, self.reading, self.waiting, self.applying)


@dataclass(frozen=True, config=_STRICT)
class TimingNote:
    """Time of a slide by stage, and of the threads in each stream of tiles.

    Attributes:
        stages_s: Seconds of each stage.
        streams: The streams of tiles, by stage.
    """

    stages_s: dict[str, NonNegativeFloat] = field(default_factory=dict)
    streams: dict[str, StreamNote] = field(default_factory=dict)

    @classmethod
    def of(cls, watch: Watch) -> Self:
        """The note of a watch."""
        return cls(
            {name: round(seconds, 3) for name, seconds in watch.stages.items()},
            {name: StreamNote.of(times) for name, times in watch.streams.items()},
        )
