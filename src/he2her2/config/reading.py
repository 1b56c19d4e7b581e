"""Settings from a preset, a TOML file and `key=value` texts, checked; and back to TOML."""

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from he2her2.config.settings import PRESETS, Config
from he2her2.errors import ConfigError, plainly, quoted
from he2her2.files import read_toml

T = TypeVar("T")


def load_config(preset: str = "default", file: Path | str | None = None, overrides: Sequence[str] = ()) -> Config:
    """The settings of a preset, overridden by a TOML file, overridden by `key=value` strings.

    Args:
        preset: A name of `PRESETS`; a file's `preset` key outranks it.
        file: TOML with any part of `Config`; its table `training`, if any, is what `he2her2 train` reads.
        overrides: Such as "selection.n_tiles=100", one or several; the value is read as TOML, or as text where it is
            none.

    Raises:
        ConfigError: An unknown preset or key, or a value of the wrong type or range; all problems in one line.
    """
    file = None if file is None else Path(file)
    wanted = gather(file, ())
    wanted.pop("training", None)
    for override in [overrides] if isinstance(overrides, str) else overrides:
        _put(wanted, override)
    name = take_preset(wanted, preset, file)
    return settle(PRESETS[name], wanted, file)


def gather(file: Path | None, overrides: Sequence[str]) -> dict[str, Any]:
    """Settings in a TOML file and in `key=value` strings, nested and not checked yet.

    Raises:
        ConfigError: The file cannot be read, or a string is no `key=value`.
    """
    wanted = _read_toml(file) if file else {}
    for override in overrides:
        _put(wanted, override)
    return wanted


def chosen_keys(file: Path | None, overrides: Sequence[str]) -> frozenset[str]:
    """Keys that a TOML file or `key=value` strings set, such as "selection.n_tiles".

    Raises:
        ConfigError: As `gather`.

    Example:
        >>> sorted(chosen_keys(None, ["selection.n_tiles=30", "threshold=0.4"]))
        ['selection.n_tiles', 'threshold']
    """
    return frozenset(_leaves(gather(file, overrides)))


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def take_preset(wanted: dict[str, Any], preset: str, file: Path | None = None) -> str:
    """Take the preset's name out of what is wanted, or else the one given.

    Raises:
        ConfigError: It is not one of `PRESETS`.
    """
    name = wanted.pop("preset", preset)
    if not isinstance(name, str) or name not in PRESETS:
        raise ConfigError(f"{_source(file)}unknown preset {quoted(str(name))}; choose one of {', '.join(PRESETS)}")
    return name


def settle(base: T, wanted: Mapping[str, Any], file: Path | None = None, prefix: str = "") -> T:
    """Settings (a pydantic dataclass) with every value that `wanted` has replaced, and all of them checked.

    Args:
        base: What is not wanted otherwise.
        wanted: Nested values by key.
        file: Where they come from, for messages.
        prefix: Of the keys in messages, such as "training.".

    Raises:
        ConfigError: An unknown key, or a value of the wrong type or range; all problems in one line.
    """
    settings = asdict(base)  # type: ignore[call-overload]  # every T here is a dataclass
    if no_numbers := list(_truth_for_number(settings, wanted)):
        problems = "; ".join(f"{prefix}{key}: is a number, not true or false" for key in no_numbers)
        raise ConfigError(f"{_source(file)}{problems}")
    merged = _merge(settings, wanted)
    try:
        return TypeAdapter(type(base)).validate_python(merged)
    except ValidationError as error:
        problems = "; ".join(
            f"{prefix}{'.'.join(map(str, e['loc']))}: {_in_words(e['type'], e['msg'])}" for e in error.errors()
        )
        raise ConfigError(f"{_source(file)}{problems}") from None


def _truth_for_number(base: Mapping[str, Any], over: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Keys of numbers for which true or false is wanted, which Python would take for 1 or 0."""
    for key, value in over.items():
        below = base.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            yield from _truth_for_number(below, value, f"{prefix}{key}.")
        elif isinstance(value, bool) and key in base and not isinstance(below, bool | str):
            yield f"{prefix}{key}"


def _source(file: Path | None) -> str:
    return f"{file}: " if file else ""


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return read_toml(file)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror}); give a TOML file") from None
    except ValueError as error:
        raise ConfigError(f"{file}: is not TOML: {error}") from None


def _put(settings: dict[str, Any], override: str) -> None:
    """Put "a.b=value" into nested `settings`."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"'{override}': write it as key=value, such as selection.n_tiles=300")
    if "\n" in override or "\r" in override:
        raise ConfigError(f"{override!r}: holds several lines; give --set once for each setting")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        value = text
    *path, last = key.strip().split(".")
    for part in path:
        settings = settings.setdefault(part, {})
        if not isinstance(settings, dict):
            raise ConfigError(f"{key}: '{part}' is a value, not a group of settings")
    settings[last] = value


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with every leaf that `over` has replaced."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def _in_words(kind: str, message: str) -> str:
    match kind:
        case "unexpected_keyword_argument":
            return "is no setting; `he2her2 config` lists them all"
        case "dataclass_type":
            return "is a group of settings; set one of them, which `he2her2 config` lists"
        case _:
            return plainly(message)


def to_toml(config: Config) -> str:
    """Every setting as TOML that `load_config` reads back; those without a value are "none".

    Example:
        >>> print(to_toml(Config()).splitlines()[0])
        preset = "default"
    """
    settings = asdict(config)
    groups = {key: value for key, value in settings.items() if isinstance(value, dict)}
    lines = [_toml_line(key, value) for key, value in settings.items() if key not in groups]
    for name, group in groups.items():
        lines += ["", f"[{name}]", *(_toml_line(key, value) for key, value in group.items())]
    return "\n".join(lines) + "\n"


def _toml_line(key: str, value: object) -> str:
    text = json.dumps("none" if value is None else value, ensure_ascii=False)
    return f"{key} = {text}".replace("\x7f", r"\u007f")  # of JSON's text the one character that TOML's may not hold
