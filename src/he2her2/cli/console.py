"""Plain text to the terminal or a pipe."""

from rich.console import Console


def say(text: str, *, error: bool = False) -> None:
    """Print plain text: no markup, no wrapping, so that a pipe gets what a reader sees."""
    Console(stderr=error, highlight=False, soft_wrap=True, emoji=False).print(text, markup=False)
