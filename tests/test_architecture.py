"""The plan of the house: rooms import from below and through faces, a name has one home, heavy libraries stay at home.

A room is a folder; its face is the `__all__` of its `__init__`. Inside a room modules import each other as they like.
"""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import chain

import pytest

from tests.conftest import REPOSITORY
from tests.house import (
    SOURCE,
    House,
    Module,
    circles,
    defined_twice,
    offered_to_nobody,
    question_docstrings,
    read_house,
    room,
    slide_loops,
    targets,
    upward_imports,
)

FLOORS = [
    {"__main__"},
    {"cli"},
    {"viewer", "report"},
    {"ablation"},
    {"training"},
    {"evaluation"},
    {"cohort"},
    {"results"},
    {"pipeline"},
    {"method"},
    {"models"},
    {"exchange"},
    {"preprocessing"},
    {"statistics"},
    {"phantom"},
    {"datasets"},
    {"slides"},
    {"config"},
    {"manifest"},
    {"rules", "domain"},
    {"labels"},
    {"pages", "csv_files"},
    {"geometry", "units", "files", "timing"},
    {"machine", "errors"},
]
"""Rooms and single modules, from the top."""

NEVER = {
    "phantom": {"config"},
    "slides": {"config", "phantom"},
    "preprocessing": {"slides", "phantom"},
    "models": {"slides", "phantom", "preprocessing"},
    "statistics": {"slides", "config", "manifest", "datasets", "phantom", "pages"},
}
"""What a room may not import although it lies below."""

HEAVY = {
    "torch": {"exchange", "models", "training"},
    "lightning": {"training"},
    "matplotlib": {"evaluation"},
    "sklearn": {"evaluation"},
    "onnx": {"models"},
    "onnxruntime": {"models"},
}
"""Libraries that take a second to load, and the rooms that may; no face loads one."""

PARTS = {
    *("scipy.fft", "scipy.interpolate", "scipy.ndimage", "scipy.optimize", "scipy.spatial", "scipy.stats"),
    *("skimage.color", "skimage.feature", "skimage.filters"),
}
"""Parts of libraries that take half a second to load, which most commands on slides and runs never use."""

NAMED_OTHERWISE = {
    "PIL": "pillow",
    "google": "protobuf",
    "openslide": "openslide_python",
    "skimage": "scikit_image",
    "sklearn": "scikit_learn",
}
"""Modules whose package has another name."""

DOORS: dict[str, str] = {
    "he2her2.ablation.ablate": "torch and Lightning, which train",
    "he2her2.models.aggregators.feature_modules": "torch",
    "he2her2.models.authors_files": "torch, to open checkpoints",
    "he2her2.models.encoders.cnn_module": "torch",
    "he2her2.models.export": "torch, whose exporter writes ONNX files",
    "he2her2.models.onnx_engine": "ONNX Runtime",
    "he2her2.models.torch_engine": "torch",
    "he2her2.models.torch_modules": "torch",
    "he2her2.training.slides.adaptation": "torch, which moves batch norms",
    "he2her2.training.slides.feature_training": "torch, which trains",
    "he2her2.training.slides.train": "torch and Lightning, which train",
    "he2her2.training.tiles.train": "torch and Lightning, which train",
    "he2her2.training.tumour.train": "torch and Lightning, which train",
}
"""Modules that other rooms may import past the face, and why: the face would have to load a heavy library."""


HOUSE = read_house(SOURCE)


def house_of(**texts: str) -> House:
    """A made-up house; `__` stands for a dot, and a name that ends with it for an `__init__`."""
    names = {name: f"he2her2.{name.rstrip('_').replace('__', '.')}" for name in texts}
    return {names[name]: Module(names[name], name.endswith("__"), text) for name, text in texts.items()}


def forbidden_imports(house: House) -> list[str]:
    """Imports that `NEVER` rules out."""
    return [
        f"{name} imports {target}"
        for name, module in house.items()
        for target, _ in targets(house, module.imports)
        if "." in name and "." in target and room(target) in NEVER.get(room(name), set())
    ]


def entered_past_the_face(house: House) -> list[tuple[str, str]]:
    """Rooms, and imports from them by other rooms that their face does not offer."""
    return [
        (folder(house, target).removeprefix("he2her2."), f"{name} imports {imported or 'all'} of {target}")
        for name, module in house.items()
        for target, imported in targets(house, module.imports)
        if "." in name and not offered(house, folder(house, name), target, imported)
    ]


def offered(house: House, visitor: str, target: str, name: str | None) -> bool:
    """Whether a room may import a name from a module: of its own room or one around it, a face, or a door."""
    home = folder(house, target)
    inside = f"{visitor}.".startswith(f"{home}.")
    return inside or target in DOORS or (target == home and name in house[home].face)


def folder(house: House, module: str) -> str:
    """The innermost room of a module."""
    while module in house and not house[module].is_package and "." in module:
        module = module.rpartition(".")[0]
    return module


def heavy_imports(house: House) -> Iterator[str]:
    """Imports of heavy libraries outside their rooms."""
    for name, module in house.items():
        libraries = {target.split(".")[0] for target, _ in module.imports} & HEAVY.keys()
        yield from (f"{name} imports {library}" for library in libraries if room(name) not in HEAVY[library])


def test_rooms_import_from_below():
    """Every import points to a lower floor or into the same room."""
    assert not [name for name in HOUSE if "." in name and not any(room(name) in floor for floor in FLOORS)]
    assert not upward_imports(HOUSE, FLOORS)
    assert not forbidden_imports(HOUSE)


def test_rooms_are_entered_through_their_faces():
    """What another room imports is in the `__all__` of the room's `__init__`, or of a door."""
    assert not [finding for _, finding in entered_past_the_face(HOUSE)]


def test_faces_offer_what_somebody_takes():
    """A name in a room's `__all__` is imported by another room, a test, an experiment or a benchmark."""
    places = (SOURCE.parents[1] / name for name in ("tests", "experiments", "benchmarks", "torture", "docs"))
    visitors = [module for place in places for module in read_house(place).values()]

    assert not offered_to_nobody(HOUSE, visitors)


def test_a_name_has_one_home():
    """No function, class, constant or type alias is defined in two modules."""
    assert not defined_twice(HOUSE)


def test_docstrings_begin_with_no_question_word():
    """But with a verb or a noun."""
    assert question_docstrings(HOUSE) == []


def test_no_modules_import_each_other():
    """There is an order in which the modules can be read."""
    assert not circles(HOUSE)


def test_heavy_libraries_stay_in_their_rooms():
    """Torch and its kin are imported only where they are at home."""
    assert not list(heavy_imports(HOUSE))


def test_faces_load_no_heavy_library():
    """Entering every room takes no torch, no matplotlib, no ONNX Runtime; those of slides and runs no parts of SciPy.

    `import scipy` and `import skimage` load a part where it is used: `scipy.spatial.cKDTree`.
    """
    faces = sorted(name for name, module in HOUSE.items() if module.is_package)
    code = f"""import sys, he2her2.cohort, he2her2.viewer; print(*sys.modules.keys() & {PARTS})
import {", ".join(faces)}; print(*sys.modules.keys() & {set(HEAVY)})"""

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert not loaded


def test_what_is_imported_is_declared():
    """No library is there by the grace of another one; timm is installed by whoever has a card that names it."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    declared = {
        re.split(r"[^\w-]", line)[0]
        for line in chain(project["dependencies"], *project["optional-dependencies"].values())
    }
    imported = {target.split(".")[0] for module in HOUSE.values() for target, _ in module.imports}
    libraries = imported - sys.stdlib_module_names - {"he2her2", "timm", "_typeshed"}

    assert {NAMED_OTHERWISE.get(library, library) for library in libraries} <= {
        name.replace("-", "_") for name in declared
    }


def test_doors_are_there():
    """Each door is a module with an `__all__`."""
    assert not [door for door in DOORS if not HOUSE[door].face]


def test_an_import_from_above_is_seen():
    """Also one inside a function, or for types only."""
    house = house_of(labels="def f():\n    from he2her2.cli import main\n", cli="def main(): ...\n")
    typed = house_of(labels="if TYPE_CHECKING:\n    from he2her2 import cli\n", cli="")

    assert upward_imports(house, FLOORS) == ["he2her2.labels imports he2her2.cli"]
    assert upward_imports(typed, FLOORS) == ["he2her2.labels imports he2her2.cli"]


def test_a_forbidden_import_is_seen():
    """A room below is not for everybody."""
    house = house_of(phantom="from he2her2.config import Config\n", config="class Config: ...\n")

    assert forbidden_imports(house) == ["he2her2.phantom imports he2her2.config"]


@pytest.mark.parametrize(
    ("line", "passes"),
    [
        ("from he2her2.labels import score", True),
        ("from he2her2.labels import hidden", False),
        ("from he2her2.labels import scores", False),
        ("from he2her2.labels.scores import score", False),
        ("import he2her2.labels.scores", False),
    ],
)
def test_a_way_past_the_face_is_seen(line, passes):
    """Only names of the `__all__` may be taken, and not from the module that defines them."""
    face = "from he2her2.labels.scores import hidden, score\n__all__ = ['score']\n"
    house = house_of(cli__main=line, cli__="", labels__=face, labels__scores="def score(): ...\ndef hidden(): ...\n")

    assert (
        entered_past_the_face(house) == []
        if passes
        else [home for home, _ in entered_past_the_face(house)] == ["labels"]
    )


def test_inside_a_room_there_are_no_faces():
    """Modules of a room import each other, and a room in a room those around it; not the other way."""
    core = "from he2her2.training.slides.fit import fit\n"
    house = house_of(
        training__="",
        training__core=core,
        training__slides__="",
        training__slides__fit="from he2her2.training.run import run\nfrom he2her2.training.slides.loss import loss\n",
        training__slides__loss="def loss(): ...\n",
        training__run="def run(): ...\n",
    )

    assert entered_past_the_face(house) == [
        ("training.slides", "he2her2.training.core imports fit of he2her2.training.slides.fit")
    ]


def test_an_offer_that_nobody_takes_is_seen():
    """A room's own modules are no takers; a test is."""
    face = "from he2her2.labels.scores import one, two\n__all__ = ['one', 'two']\n"
    house = house_of(
        labels__=face, labels__scores="def one(): ...\ndef two(): ...\n", cli="from he2her2.labels import two\n"
    )
    test = Module("tests.test_labels", is_package=False, text="from he2her2.labels import one\n")

    assert offered_to_nobody(house, []) == ["he2her2.labels.one"]
    assert not offered_to_nobody(house, [test])


def test_two_homes_are_seen():
    """Of functions, constants and type aliases; a name with an underscore and a type variable may come again."""
    text = "T = TypeVar('T')\n_HIDDEN = 1\nLIMIT = 1\nRow: TypeAlias = int\ndef f(): ...\n"
    house = house_of(config=text, files=text)

    assert set(defined_twice(house)) == {"LIMIT", "Row", "f"}


def test_a_circle_is_seen():
    """Also through a third module; an import for types only makes none."""
    house = house_of(a="import he2her2.b", b="from he2her2 import c", c="from he2her2.a import x", d="import he2her2.a")
    typed = house_of(a="import he2her2.b", b="if TYPE_CHECKING:\n    import he2her2.a")

    assert circles(house) == [["he2her2.a", "he2her2.b", "he2her2.c"]]
    assert not circles(typed)


def test_a_heavy_import_is_seen():
    """A library is named with the module that imports it."""
    assert list(heavy_imports(house_of(cli__run="import torch.nn"))) == ["he2her2.cli.run imports torch"]


def test_one_loop_opens_slides():
    """All that goes from slide to slide goes through the engine."""
    found = set(slide_loops(HOUSE))

    assert found == {"he2her2.cohort.engine:SlideEngine.run"}


@pytest.mark.parametrize(
    "loop",
    [
        "def f(paths):\n    for path in paths:\n        one(path)\n",
        "def f(paths):\n    return [one(path) for path in paths]\n",
        "def f(paths, pool):\n    return list(pool.map(one, paths))\n",
        "def f(paths, worker: Callable[[Path], int]):\n    for path in paths:\n        worker(path)\n",
    ],
)
def test_a_loop_over_slides_is_seen(loop):
    """A loop that opens slides, or lets a worker do it; what calls it once, or opens one, is none."""
    one = "from he2her2.slides import open_slide\ndef one(path):\n    with open_slide(path): ...\n"
    house = house_of(slides="def open_slide(path): ...\n", work=f"{one}{loop}def g(paths):\n    f(paths)\n")

    assert slide_loops(house) == ["he2her2.work:f"]
