"""The structure of `src/he2her2`: names, loops over slides, imports, first words of docstrings.

The source is read and never imported. An `__init__` that passes names on defines none of them.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

SOURCE = Path(__file__).parents[1] / "src" / "he2her2"
OPENS_A_SLIDE = "open_slide"
ONE_SLIDE = {"Path", "SlideTask"}  # what stands for a slide in the signature of a worker
QUESTION = re.compile(r"(What|Whether|How|Where|Who|Whose|Why|When|Which)\b")
TOO_COMMON = {"open", "read", "write", "get", "close", "run", "find", "keep", "slide"}
"""Methods that need their class to be known."""

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """A parsed source file."""

    name: str  # "he2her2.slides.opening"
    is_package: bool
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree."""
        return ast.parse(self.text)

    @cached_property
    def public_names(self) -> set[str]:
        """Functions, classes, constants and type aliases that it defines at top level, without an underscore."""
        return {name for node in self.tree.body for name in _defined(node) if not name.startswith("_")}

    @cached_property
    def face(self) -> set[str]:
        """Its `__all__`; none where it has none."""
        values = [node.value for node in self.tree.body if isinstance(node, ast.Assign) and "__all__" in _defined(node)]
        return set(ast.literal_eval(values[0])) if values else set()

    @cached_property
    def functions(self) -> list[tuple[str, Function]]:
        """Every function at top level or in a class, with its name: `f`, `Class.f`."""
        return list(_functions(self.tree.body))

    @cached_property
    def imports(self) -> list[tuple[str, str | None]]:
        """Every import, also inside functions: (module, name) for `from module import name`, else (module, None)."""
        return [pair for node in ast.walk(self.tree) for pair in _import(node)]

    @cached_property
    def imports_that_run(self) -> list[tuple[str, str | None]]:
        """The imports without those of `if TYPE_CHECKING:`."""
        for_types = {inner for node in ast.walk(self.tree) if _for_types(node) for inner in ast.walk(node)}
        return [pair for node in ast.walk(self.tree) if node not in for_types for pair in _import(node)]


def _import(node: ast.AST) -> Iterator[tuple[str, str | None]]:
    if isinstance(node, ast.Import):
        yield from ((alias.name, None) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from (("." * node.level + (node.module or ""), alias.name) for alias in node.names)


def _for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


House: TypeAlias = Mapping[str, Module]


def read_house(source: Path) -> House:
    """Parse every module under a package's folder, by dotted name."""
    modules = [_read(file, source) for file in sorted(source.rglob("*.py"))]
    return {module.name: module for module in modules}


def _read(file: Path, source: Path) -> Module:
    parts = file.relative_to(source.parent).with_suffix("").parts
    is_package = parts[-1] == "__init__"
    return Module(".".join(parts[:-1] if is_package else parts), is_package, file.read_text("utf-8"))


def _defined(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id
    elif isinstance(node, ast.Assign) and not _is_type_variable(node.value):
        yield from (name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name))


def _is_type_variable(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and getattr(value.func, "id", "") in ("TypeVar", "ParamSpec")


def _functions(body: Iterable[ast.stmt], prefix: str = "") -> Iterator[tuple[str, Function]]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from _functions(node.body, f"{prefix}{node.name}.")


# The names


def defined_twice(house: House) -> dict[str, list[str]]:
    """Public names that more than one module defines, with those modules."""
    homes = defaultdict(list)
    for module in house.values():
        for name in module.public_names:
            homes[name].append(module.name)
    return {name: sorted(homes[name]) for name in sorted(homes) if len(homes[name]) > 1}


def offered_to_nobody(house: House, visitors: Iterable[Module]) -> list[str]:
    """Names in a room's face that neither another room nor a visitor (a test, an experiment) imports from it."""
    taken = {
        (target, name)
        for module in (*house.values(), *visitors)
        for target, name in module.imports
        if not f"{module.name}.".startswith(f"{target}.")
    }
    return sorted(
        f"{room_}.{name}"
        for room_, module in house.items()
        if module.is_package and "." in room_
        for name in module.face
        if (room_, name) not in taken
    )


def _home(house: House, target: str, name: str) -> str:
    """The module that defines `name`, followed through the faces that pass it on."""
    seen = set()
    while target not in seen and name not in house[target].public_names:
        seen.add(target)
        passed_on = [origin for origin, imported in house[target].imports if imported == name and origin in house]
        target = passed_on[0] if passed_on else target
    return target


# Loops over slides


def slide_loops(house: House) -> list[str]:
    """Functions that go from slide to slide and open each.

    Either a loop (`for`, a comprehension, `pool.map`) calls a function that opens one slide, itself or through others;
    or it calls a worker that was handed over and takes a path or a task. What calls a function with such a loop opens
    many slides, and is none itself.
    """
    calls = _calls(house)
    openers: set[str] = set()
    while grown := {name for name, call in calls.items() if call.outside & (openers | {OPENS_A_SLIDE})} - openers:
        openers |= grown
    return sorted(
        name for name, call in calls.items() if call.takes_worker or call.in_loops & (openers | {OPENS_A_SLIDE})
    )


@dataclass(frozen=True)
class _Calls:
    """Functions of the house that a function refers to, `module:name`, in its loops and outside them."""

    in_loops: set[str]
    outside: set[str]
    takes_worker: bool


def _calls(house: House) -> dict[str, _Calls]:
    methods: defaultdict[str, set[str]] = defaultdict(set)
    for module in house.values():
        for name, _ in module.functions:
            if "." in name:
                methods[name.rpartition(".")[2]].add(f"{module.name}:{name}")
    return {key: call for module in house.values() for key, call in _calls_in(module, house, methods)}


def _calls_in(module: Module, house: House, methods: Mapping[str, set[str]]) -> Iterator[tuple[str, _Calls]]:
    known = _names_in_sight(house, module)
    for name, function in module.functions:
        owner = f"{module.name}:{name.rpartition('.')[0]}"
        looped = {node for loop in _loops(function) for node in ast.walk(loop)}
        targets = {node: _targets(node, known, methods, owner) for node in ast.walk(function)}
        in_loops = {target for node in looped for target in targets[node]}
        outside = {target for node in targets.keys() - looped for target in targets[node]}
        yield f"{module.name}:{name}", _Calls(in_loops, outside, _calls_a_worker(function, looped))


def _names_in_sight(house: House, module: Module) -> dict[str, str]:
    known = {name: f"{module.name}:{name}" for name, _ in module.functions if "." not in name}
    for target, name in module.imports:
        if target in house and name is not None:
            known[name] = OPENS_A_SLIDE if name == OPENS_A_SLIDE else f"{_home(house, target, name)}:{name}"
    return known


def _loops(function: Function) -> Iterator[ast.AST]:
    """Nodes that run once for each item: bodies of loops and comprehensions, arguments of `map`."""
    for node in ast.walk(function):
        if isinstance(node, ast.For | ast.While):
            yield from node.body
        elif isinstance(node, ast.ListComp | ast.SetComp | ast.GeneratorExp):
            yield node.elt
        elif isinstance(node, ast.DictComp):
            yield node.value
        elif isinstance(node, ast.Call) and _called(node) in ("map", "submit"):
            given = node.args[:1]
            yield from given
            inner = {nested.name: nested for nested in ast.walk(function) if isinstance(nested, ast.FunctionDef)}
            yield from (inner[name.id] for name in given if isinstance(name, ast.Name) and name.id in inner)


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _targets(node: ast.AST, known: Mapping[str, str], methods: Mapping[str, set[str]], owner: str) -> set[str]:
    """Functions of the house that a node names: `f`, `self.f`, or `x.f` where one class alone has an `f`."""
    if isinstance(node, ast.Name) and node.id in known:
        return {known[node.id]}
    if isinstance(node, ast.Attribute):
        found = methods.get(node.attr, set())
        if isinstance(node.value, ast.Name) and node.value.id == "self":
            return found & {f"{owner}.{node.attr}"}
        if len(found) == 1 and node.attr not in TOO_COMMON:
            return found
    return set()


def _calls_a_worker(function: Function, looped: set[ast.AST]) -> bool:
    workers = {argument.arg for argument in _arguments(function) if _is_worker(argument.annotation)}
    return any(isinstance(node, ast.Name) and node.id in workers for node in looped)


def _is_worker(annotation: ast.expr | None) -> bool:
    """Tell `Callable[[Path], R]`, `Worker[R]` and the like; one that returns text is a key, and opens nothing."""
    match annotation:
        case ast.Name("Worker") | ast.Subscript(ast.Name("Worker"), _):
            return True
        case ast.Subscript(ast.Name("Callable"), ast.Tuple([ast.List([ast.Name(taken)]), given])):
            return taken in ONE_SLIDE and not re.search(r"\b(str|Hashable)\b", _text(given))
    return False


# The direction, words


def _arguments(function: Function) -> list[ast.arg]:
    given = function.args
    return [*given.posonlyargs, *given.args, *given.kwonlyargs]


def _text(annotation: ast.expr | None) -> str:
    return "" if annotation is None else ast.unparse(annotation).strip("'\"")


def upward_imports(house: House, floors: Sequence[set[str]]) -> list[str]:
    """Imports of a room from one that is not below it; `floors` lists the rooms from the top.

    The package's own `__init__` leads to all rooms, and nothing imports from it but its version.
    """
    floor = {room: i for i, rooms in enumerate(floors) for room in rooms}
    pairs = {(name, target) for name, module in house.items() for target, _ in targets(house, module.imports)}
    return sorted(
        f"{name} imports {target}"
        for name, target in pairs
        if "." in name and "." in target and room(name) != room(target) and floor[room(target)] <= floor[room(name)]
    )


def room(module: str) -> str:
    """The room of `he2her2.room.module`."""
    return module.split(".")[1]


def circles(house: House) -> list[list[str]]:
    """Groups of modules that import each other, the modules of a group in order."""
    reach = {
        name: {target for target, _ in targets(house, module.imports_that_run)} - {name}
        for name, module in house.items()
    }
    while (grown := {name: near.union(*(reach[other] for other in near)) for name, near in reach.items()}) != reach:
        reach = grown
    groups = {tuple(sorted(other for other in reach[name] if name in reach[other])) for name in reach}
    return sorted(list(group) for group in groups if group)


def targets(house: House, imports: Iterable[tuple[str, str | None]]) -> Iterator[tuple[str, str | None]]:
    """Imports from the house: the module, and the name that is taken from it, if it is one and no module."""
    for target, name in imports:
        if f"{target}.{name}" in house:
            yield f"{target}.{name}", None
        elif target in house:
            yield target, name


def question_docstrings(house: House) -> list[str]:
    """Docstrings that begin with a question word instead of a verb or a noun."""
    found = []
    for module in house.values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node) or ""
                if QUESTION.match(text):
                    found.append(f"{module.name}:{getattr(node, 'name', '')}  {text.splitlines()[0]}")
    return sorted(found)
