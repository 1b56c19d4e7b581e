"""How a training is carried out; nothing of it changes what is learned."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from he2her2.timing import Progress, silent
from he2her2.training.settings import Hardware


def _unheard(_: str) -> None:
    """Say it to nobody."""


@dataclass(frozen=True, slots=True)
class Execution:
    """On what a training runs, what may lie in its folder already, and who is told.

    Attributes:
        hardware: What it runs on.
        command: The command line, for `run.json`.
        resume: Go on with the same training, or begin where there is none.
        overwrite: Replace another training in the folder.
        progress: Told how far the reading of slides is.
        say: Told, in a line, what a user should see.
    """

    hardware: Hardware
    command: Sequence[str] = ()
    resume: bool = False
    overwrite: bool = False
    progress: Progress = silent
    say: Callable[[str], None] = _unheard
