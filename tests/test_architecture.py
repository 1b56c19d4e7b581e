"""The house of DESIGN: a room imports only from the rooms below it."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "he2her2"

FLOORS = [
    {"__main__"},
    {"cli"},
    {"viewer", "report"},
    {"exchange"},
    {"ablation"},
    {"training"},
    {"evaluation"},
    {"cohort"},
    {"results"},
    {"pipeline"},
    {"method"},
    {"models"},
    {"preprocessing"},
    {"statistics"},
    {"phantom"},
    {"datasets"},
    {"slides"},
    {"config"},
    {"manifest"},
    {"rules"},
    {"labels"},
    {"pages"},
    {"geometry", "units", "files", "timing"},
    {"errors"},
    {"__init__"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
NEVER = {  # what a room may not import although it lies below
    "phantom": {"config"},
    "slides": {"config", "phantom"},
    "preprocessing": {"slides", "phantom"},
    "models": {"slides", "phantom", "preprocessing"},
    "statistics": {"slides", "config", "manifest", "datasets", "phantom", "pages"},
}
HEAVY_ROOMS = {
    "torch": {"models", "training"},
    "lightning": {"training"},
    "matplotlib": {"evaluation"},
    "sklearn": {"evaluation", "statistics"},
}


def room_of(module: str) -> str:
    """The room of `he2her2.room.module`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            if node.module == "he2her2":
                found |= {f"he2her2.{alias.name}" for alias in node.names if f"{alias.name}" in FLOOR} or {"he2her2"}
            else:
                found.add(node.module)
    return found


FILES = sorted(
    path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py"
)  # which leads to all rooms, late


def own_room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_room_imports_only_from_below(path):
    """Every import of the project points to a lower floor or into the same room."""
    room = own_room(path)
    others = {room_of(name) for name in imports_of(path) if name.split(".")[0] == "he2her2"} - {room}

    assert room in FLOOR, f"{room} has no place in the house"
    assert not {other for other in others if FLOOR[other] <= FLOOR[room]}
    assert not others & NEVER.get(room, set())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_heavy_libraries_stay_in_their_rooms(path):
    """Torch and its kin are imported only where they are at home."""
    libraries = {name.split(".")[0] for name in imports_of(path)}

    for library in libraries & HEAVY_ROOMS.keys():
        assert own_room(path) in HEAVY_ROOMS[library], f"{path.name} imports {library}"


def test_the_walk_sees_imports(tmp_path):
    """The check can fail: an import inside a function is seen."""
    file = tmp_path / "x.py"
    file.write_text("def f():\n    from he2her2.cli import main\n")

    assert imports_of(file) == {"he2her2.cli"}
