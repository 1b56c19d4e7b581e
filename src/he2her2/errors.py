"""All errors that a user can meet.

A message names what failed, what was found and what to do. `ValueError` and `TypeError` stay what they are
in Python: the caller's bug.
"""

from collections.abc import Callable, Sequence
from typing import Self, TypeVar

_LONGEST_QUOTE = 80
_LONGEST_PROBLEM = 1000

_E = TypeVar("_E", bound="He2Her2Error")


def quoted(text: str) -> str:
    """Return text in quotes for a message, on one line and cut short.

    Example:
        >>> quoted("3+"), len(quoted("x" * 100_000))
        ("'3+'", 85)
    """
    return repr(text) if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]!r}..."


def few_of(names: Sequence[str], most: int = 5, *, between: str = ", ") -> str:
    """Return the first few of some names for a message, and how many more there are.

    Example:
        >>> few_of(["a", "b"]), few_of(["a", "b", "c"], 2)
        ('a, b', 'a, b and 1 more')
    """
    more = len(names) - most
    return between.join(names[:most]) + (f" and {more} more" if more > 0 else "")


class He2Her2Error(Exception):
    """An error of input or settings; the command line prints it as one line and exits with code 2."""

    def __reduce__(self) -> tuple[Callable[..., Self], tuple[object, ...]]:
        """Pass from one process to another, whatever the error was made of: Python would make it of its message."""
        return _as_it_was, (type(self), self.args, self.__dict__)


class ConfigError(He2Her2Error):
    """A setting is unknown, of the wrong type or out of range."""


class WeightsError(He2Her2Error):
    """Weights are missing, damaged, or not those of the network that should run."""


class ManifestError(He2Her2Error):
    """A manifest, or a table of labels, cannot be used; the command line prints one problem a line.

    Attributes:
        problems: Everything that is wrong, one line each, cut short where a table's cell is huge.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(
            problem if len(problem) <= _LONGEST_PROBLEM else f"{problem[:_LONGEST_PROBLEM]}..." for problem in problems
        )
        super().__init__("\n".join(self.problems))


class EvaluationError(He2Her2Error):
    """A run cannot be evaluated: it is no run, or its results and the labels do not meet."""


class PatchError(He2Her2Error):
    """A set of labelled patches cannot be trained on."""


class AnnotationError(He2Her2Error):
    """An annotation file cannot be read or holds no usable region."""


class OutputError(He2Her2Error):
    """Results cannot be written."""


class PhantomError(He2Her2Error):
    """A phantom's parameters cannot be met."""


class SlideError(He2Her2Error):
    """One slide cannot be processed; in a cohort this becomes a row of `failures.csv`.

    Attributes:
        slide_id: The slide's name.
        stage: The step that failed: open, annotations, read, tissue, tumour, tiling, scoring, exchange.
        reason: The finding.
        remedy: Advice to the user.
    """

    stage = "open"

    def __init__(self, slide_id: str, reason: str, remedy: str) -> None:
        super().__init__(f"{slide_id}: {reason}; {remedy}")
        self.slide_id = slide_id
        self.reason = reason
        self.remedy = remedy


class SlideOpenError(SlideError):
    """The file is missing, of an unknown format, cut short or contradicts itself."""


class MppError(SlideError):
    """The slide's µm per pixel are unknown or impossible."""


class UnreadableRegionError(SlideError):
    """Some pixels of an open slide cannot be decoded; the rest of the slide stays readable."""

    stage = "read"


class DamagedSlideError(SlideError):
    """More of the slide is unreadable than can be left out."""

    stage = "scoring"


class NotANumberError(SlideError):
    """A network gave a value that is no number."""

    stage = "scoring"


class ExchangeError(SlideError):
    """Tiles or features of another program cannot be read, or cannot be written in the layout asked for."""

    stage = "exchange"


class TissueError(SlideError):
    """There is no tissue on the slide, or none that is fit for use."""

    stage = "tissue"


class TumourError(SlideError):
    """No invasive tumour was found in the tissue."""

    stage = "tumour"


class TilingError(SlideError):
    """The tumour is too small for the tiles that the method needs."""

    stage = "tiling"


def _as_it_was(kind: type[_E], args: tuple[object, ...], attributes: dict[str, object]) -> _E:
    """An error of another process."""
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


def plainly(problem: str) -> str:
    """The problem that pydantic has with a value, in the words of a user.

    Example:
        >>> plainly("Input should be a valid integer, unable to parse string as an integer")
        'must be a valid integer'
    """
    said = problem.replace("Value error, ", "").partition(", unable to ")[0].replace("Input should", "must")
    return said.replace("a valid boolean", "true or false")
