"""Plain text to the terminal or a pipe."""

from contextlib import AbstractContextManager, nullcontext

from rich.console import Console


def say(text: str, *, error: bool = False) -> None:
    """Print plain text: no markup, no wrapping, so that a pipe gets what a reader sees."""
    Console(stderr=error, highlight=False, soft_wrap=True, emoji=False).print(text, markup=False)


def working(text: str) -> AbstractContextManager[object]:
    """Show that work goes on, while a terminal watches."""
    console = Console(stderr=True)
    return console.status(text) if console.is_terminal else nullcontext()
