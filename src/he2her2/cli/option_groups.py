"""Groups of options that several commands share: each a dataclass, which a command takes as one argument."""

import inspect
import sys
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import typer

from he2her2.cli import options as o
from he2her2.errors import ConfigError

if TYPE_CHECKING:
    from he2her2.cohort import SlideSources
    from he2her2.config import Config
    from he2her2.labels import Policy
    from he2her2.training import Execution

T = TypeVar("T")
_running: ContextVar[typer.Context] = ContextVar("_running")


def grouped(command: Callable[..., T]) -> Callable[..., T]:
    """The command as typer reads it: in place of each parameter whose type is a dataclass stand its fields, as options.

    While it runs, `refuse_idle` knows which of them the user gave.

    Example:
        >>> def show(settings: SettingsOptions, threads: int = 1): ...
        >>> list(inspect.signature(grouped(show)).parameters)
        ['preset', 'config', 'settings', 'threads', 'context']
    """
    signature = inspect.signature(command, eval_str=True)
    types: dict[str, Any] = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    groups: dict[str, Any] = {name: type_ for name, type_ in types.items() if is_dataclass(type_)}
    options = [
        option.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in signature.parameters.items()
        for option in (_options(groups[name]) if name in groups else [parameter])
    ]

    options.append(inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context))

    @wraps(command)
    def run(*, context: typer.Context, **values: Any) -> T:  # noqa: ANN401  what typer parsed
        _running.set(context)
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        return command(**values)

    run.__signature__ = signature.replace(parameters=options)  # type: ignore[attr-defined]
    run.__annotations__ = {option.name: option.annotation for option in options}
    return run


def refuse_idle(*names: str, where: str) -> None:
    """Refuse options that the user gave and that have no effect beside the others.

    Args:
        names: Parameters of the command that runs, which is `grouped`.
        where: Reason, such as "without --folds".

    Raises:
        ConfigError: One of them is on the command line.
    """
    context = _running.get()
    sources = {name: context.get_parameter_source(name) for name in names}
    given = {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}
    if idle := [max(option.opts, key=len) for option in context.command.params if option.name in given]:
        raise ConfigError(f"{', '.join(idle)}: no effect {where}")


def refuse_idle_annotations(sources: "SlideSources") -> None:
    """Refuse options on annotations where no slide has any.

    Raises:
        ConfigError: One of them is on the command line.
    """
    if not any(task.annotations for task in sources.tasks):
        refuse_idle("annotations_use", "annotation_class", where="without annotations: give --annotations")


def _options(group: type) -> list[inspect.Parameter]:
    return list(inspect.signature(group, eval_str=True).parameters.values())


@dataclass(frozen=True)
class SettingsOptions:
    """Settings of a command: a preset, over it a file, over both single values."""

    preset: o.PresetName = "default"
    config: o.ConfigFile = None
    settings: o.Set = None

    @property
    def overrides(self) -> list[str]:
        """Single settings: those of --set, then the options of a subclass, which are settings of the runtime."""
        options = fields(self)[len(fields(SettingsOptions)) :]
        named = {option.name: getattr(self, option.name) for option in options}
        changed = [option.name for option in options if named[option.name] != option.default]
        return [*(self.settings or []), *(f"runtime.{name}={named[name]}" for name in changed)]

    def load(self) -> "Config":
        """The settings of the method."""
        from he2her2.config import load_config

        return load_config(self.preset, self.config, self.overrides)

    def load_training(self, kind: Literal["tumour", "tiles", "slides", "features"], *more: str) -> "tuple[Config, Any]":
        """The settings of the method and of a training; `more` are single settings over all others."""
        from he2her2.training import load_training

        return load_training(kind, self.preset, self.config, [*self.overrides, *more])


@dataclass(frozen=True)
class ThreadedSettings(SettingsOptions):
    """Settings of a command that reads slides by threads."""

    threads: o.Threads = None


@dataclass(frozen=True)
class DeviceSettings(ThreadedSettings):
    """Settings of a command that runs the CNNs."""

    device: o.RunsOn = "auto"


@dataclass(frozen=True)
class RuntimeSettings(DeviceSettings):
    """Settings of a command that reads and scores tiles as prediction does."""

    precision: o.Arithmetic = "full"
    backend: o.Reader = "auto"


@dataclass(frozen=True)
class CohortTerms:
    """Policy for the labels of a cohort, and the terms of its data."""

    policy: o.PolicyOption = "guideline"
    licence: o.Licence = "not stated"
    notice: o.Notice = ""

    @property
    def status_policy(self) -> "Policy":
        """The policy for an equivocal 2+ without in situ hybridisation."""
        from he2her2.labels import Policy

        return Policy(self.policy)


@dataclass(frozen=True)
class TrainingHardware:
    """Hardware of a training, for Lightning, and what becomes of another training in its folder."""

    overwrite: o.OverwriteTraining = False
    accelerator: o.Accelerator = "auto"
    devices: o.Devices = "auto"
    strategy: o.Strategy = "auto"
    precision: o.TrainingPrecision = "32-true"

    def execution(self, *, workers: int = 0, resume: bool = False) -> "Execution":
        """Hardware and messages of a training: of several processes only the first one prints.

        `workers` stays 0 where patches lie in memory, or threads read a slide's tiles.

        Raises:
            ConfigError: A training is to be gone on with and to be begun anew.
        """
        if resume and self.overwrite:
            raise ConfigError("--resume goes on with a training, --overwrite removes it and begins anew; choose one")
        from he2her2.cli.console import say
        from he2her2.cli.progress import Stages
        from he2her2.training import Execution, Hardware, is_first_process

        def tell(text: str) -> None:
            if is_first_process():
                say(text, error=True)

        hardware = Hardware(self.accelerator, self.devices, self.strategy, self.precision, workers)
        return Execution(hardware, sys.argv, resume, self.overwrite, Stages().progress, tell)
