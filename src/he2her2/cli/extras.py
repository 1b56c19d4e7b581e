"""Optional libraries of a command, asked for before anything heavy is loaded."""

from importlib.util import find_spec

from he2her2.errors import ConfigError


def require_extra(extra: str, *modules: str) -> None:
    """Refuse a command whose libraries are not installed.

    Args:
        extra: The extra of the package that brings them.
        modules: Top-level modules that the command loads.

    Raises:
        ConfigError: One of them is not there.

    Example:
        >>> require_extra("train", "sys")
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise ConfigError(f"this command needs {', '.join(missing)}: pip install 'he2her2[{extra}]'")
