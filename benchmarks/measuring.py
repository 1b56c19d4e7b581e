"""Timing: candidates in turns within one run, medians over the rounds, ratios round by round."""

import gc
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter

LIBRARIES = (
    "he2her2", "numpy", "scipy", "tifffile", "simplejpeg", "openslide-python", "openslide-bin", "onnxruntime", "torch",
    "lightning",
)  # fmt: skip


class NotHere(Exception):  # noqa: N818  it is no error
    """The machine lacks what a topic measures."""


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds of each candidate in each round.

    Attributes:
        seconds: By candidate; rounds are aligned.
    """

    seconds: Mapping[str, Sequence[float]]

    def median(self, name: str) -> float:
        """Median seconds of a candidate."""
        return statistics.median(self.seconds[name])

    def rate(self, name: str, n: int) -> float:
        """Items per second of a candidate that does `n` items."""
        return n / self.median(name)

    def times_faster(self, name: str, than: str) -> float:
        """Median over the rounds of the speed-up of one candidate over another."""
        pairs = zip(self.seconds[than], self.seconds[name], strict=True)
        return statistics.median(slow / fast for slow, fast in pairs)


def alternate(candidates: Mapping[str, Callable[[], object]], rounds: int, *, warm_up: bool = True) -> Timings:
    """Run every candidate once a round, in alternating order, so that drift of the machine affects all alike.

    Args:
        candidates: What is run, by name.
        rounds: How often each is timed.
        warm_up: Run each once before, untimed.
    """
    for run in candidates.values() if warm_up else ():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(rounds):
        names = [*candidates][:: 1 if turn % 2 == 0 else -1]
        for name in names:
            gc.collect()
            start = perf_counter()
            candidates[name]()
            seconds[name].append(perf_counter() - start)
    return Timings(seconds)


def machine() -> dict[str, object]:
    """Describe hardware, load, time and versions."""
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "gpu": _gpu_name(),
        "system": platform.system(),
        "load_1min": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": {name: found for name in LIBRARIES if (found := version_of(name))},
    }


def version_of(package: str) -> str | None:
    """Version of an installed package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _gpu_name() -> str:
    """Name of the first GPU that torch can use; loads torch only if a driver is present."""
    if not Path("/dev/nvidiactl").exists() or version_of("torch") is None:
        return "none"
    import torch  # noqa: PLC0415  takes seconds

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none"


def status_gb(field: str) -> float:
    """Read a field of this process's `/proc/self/status`, GB: VmHWM is the peak, VmRSS the current memory."""
    for line in Path("/proc/self/status").read_text("utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / 1e9
    raise ValueError(f"no {field} here")
