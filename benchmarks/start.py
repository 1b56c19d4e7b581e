"""Start-up time of the command line."""

import subprocess
import sys
from functools import partial
from pathlib import Path

from benchmarks.measuring import alternate
from benchmarks.results import Found, Setting, Table

COMMAND = "he2her2 --help"


def measure(setting: Setting) -> Found:
    """Measure the seconds of `he2her2 --help`, beside those of Python alone."""
    script = Path(sys.executable).parent / "he2her2"
    ours = [str(script)] if script.exists() else [sys.executable, "-m", "he2her2"]
    candidates = {
        COMMAND: partial(_run, [*ours, "--help"]),
        "Python alone": partial(_run, [sys.executable, "-c", "pass"]),
    }
    timings = alternate(candidates, setting.pick(15, 1), warm_up=not setting.quick)
    table = Table("Starting a command", ("command", "s"), tuple((name, timings.median(name)) for name in candidates))
    return Found({"start_s": timings.median(COMMAND)}, (table,), {"seconds": dict(timings.seconds)})


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
