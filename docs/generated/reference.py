"""Pages that are generated from the program itself: every command, every setting, every dial of a phantom.

MkDocs calls this as a hook; the pages are never written into the repository.
"""

from dataclasses import asdict, dataclass, fields, is_dataclass
from inspect import getdoc, isclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import griffe
import typer.main
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from mkdocs.structure.files import File, Files

from he2her2.cli.commands import app
from he2her2.config import PRESETS, Config
from he2her2.phantom import PhantomSpec
from he2her2.training import TRAININGS

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig

_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    autoescape=False,  # noqa: S701  Markdown of our own docstrings
)


@dataclass(frozen=True)
class Setting:
    """One setting: its key, its value in each preset, and its meaning."""

    key: str
    values: tuple[str, ...]
    meaning: str


@dataclass(frozen=True)
class Group:
    """A group of settings, with the sentence that heads it."""

    name: str
    sentence: str
    settings: tuple[Setting, ...]


@dataclass(frozen=True)
class Option:
    """One argument or option of a command."""

    names: str
    default: str
    meaning: str


@dataclass(frozen=True)
class Command:
    """One command with its options."""

    name: str
    usage: str
    meaning: str
    options: tuple[Option, ...]


def on_files(files: Files, config: "MkDocsConfig") -> Files:
    """Add the generated pages."""
    for name, text in pages().items():
        files.append(File.generated(config, name, content=text))
    return files


def pages() -> dict[str, str]:
    """Markdown of each generated page, by file name."""
    return {
        "commands.md": _render("commands.md", commands=commands()),
        "settings.md": _render("settings.md", presets=list(PRESETS), groups=method_settings(), trainings=trainings()),
        "phantoms.md": _render("phantoms.md", dials=phantom_dials()),
    }


def _render(template: str, **values: object) -> str:
    return _ENVIRONMENT.get_template(template).render(values)


def commands() -> list[Command]:
    """Every command of the program, those of groups by their full name."""
    root = typer.main.get_command(app)
    return list(_commands(root, "he2her2"))


def _commands(command: Any, name: str) -> Any:  # noqa: ANN401  typer keeps the types of its commands private
    subcommands = getattr(command, "commands", None)
    if subcommands is not None:
        for sub, one in subcommands.items():
            yield from _commands(one, f"{name} {sub}")
        return
    context = command.make_context(name, [], resilient_parsing=True)
    usage = " ".join(command.collect_usage_pieces(context))
    records = [(one, one.get_help_record(context)) for one in command.params if not one.hidden]
    options = [Option(_names(one, record), _default(one), _meaning(one, record)) for one, record in records]
    yield Command(name, f"{name} {usage}", command.help or "", tuple(options))


def _names(parameter: Any, record: tuple[str, str] | None) -> str:  # noqa: ANN401
    if parameter.param_type_name == "argument":
        return str(parameter.make_metavar(None) if record is None else record[0])
    return record[0] if record else ", ".join(parameter.opts)


def _default(parameter: Any) -> str:  # noqa: ANN401
    if parameter.required:
        return "required"
    shown = getattr(parameter, "show_default", None)
    if isinstance(shown, str):
        return shown
    value = parameter.default
    return "" if value in (None, (), [], False) or callable(value) else str(value)


def _meaning(parameter: Any, record: tuple[str, str] | None) -> str:  # noqa: ANN401
    text = getattr(parameter, "help", None) or (record[1] if record else "")
    return " ".join(text.split())


def method_settings() -> list[Group]:
    """Every setting of the method, with its value in each preset."""
    configs = [asdict(preset) for preset in PRESETS.values()]
    top = [field.name for field in fields(Config) if not _is_group(getattr(Config(), field.name))]
    meanings = _meanings(Config)
    single = tuple(
        Setting(name, tuple(_shown(config[name]) for config in configs), meanings[name])
        for name in top
        if name in meanings
    )
    groups = [Group("", "Beside the groups.", single)]
    for field in fields(Config):
        value = getattr(Config(), field.name)
        if _is_group(value):
            values = [config[field.name] for config in configs]
            groups.append(_group(field.name, type(value), values))
    return groups


def trainings() -> dict[str, list[Group]]:
    """Every setting of each training, with its value in each preset."""
    found: dict[str, list[Group]] = {}
    for kind, by_preset in TRAININGS.items():
        loaded = [by_preset[preset] for preset in PRESETS]
        found[kind] = list(_nested("training", type(loaded[0]), [asdict(one) for one in loaded], loaded[0]))
    return found


def _nested(name: str, kind: type, values: list[dict[str, Any]], example: object) -> Any:  # noqa: ANN401
    inner = {field.name for field in fields(kind) if _is_group(getattr(example, field.name))}
    plain = [{key: value for key, value in one.items() if key not in inner} for one in values]
    yield _group(name, kind, plain)
    for key in sorted(inner):
        value = getattr(example, key)
        yield from _nested(f"{name}.{key}", type(value), [one[key] for one in values], value)


def phantom_dials() -> Group:
    """Every dial of a phantom slide, with its default."""
    return _group("", PhantomSpec, [asdict(PhantomSpec())])


def _group(name: str, kind: type, values: list[dict[str, Any]]) -> Group:
    meanings, prefix = _meanings(kind), f"{name}." if name else ""
    settings = tuple(
        Setting(f"{prefix}{key}", tuple(_shown(one[key]) for one in values), meanings[key]) for key in values[0]
    )
    return Group(name, _sentence(kind), settings)


def _is_group(value: object) -> bool:
    return is_dataclass(value) and not isclass(value)


def _shown(value: object) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _sections(kind: type) -> list[Any]:
    return griffe.Docstring(getdoc(kind) or "", parser="google").parse(warnings=False)


def _sentence(kind: type) -> str:
    return " ".join(str(_sections(kind)[0].value).split())


def _meanings(kind: type) -> dict[str, str]:
    """Meaning of each attribute, by the docstring."""
    attributes = [section.value for section in _sections(kind) if section.kind.value == "attributes"]
    return {one.name: " ".join(one.description.split()) for one in (attributes[0] if attributes else ())}
