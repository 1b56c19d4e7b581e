"""The pages for people name what is there."""

import ast
import re
from pathlib import Path

import pytest

import he2her2
from he2her2.results.tables import _PREDICTION_COLUMNS as PREDICTION_COLUMNS

REPOSITORY = Path(__file__).parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "docs/measured.md", "docs/your-cohort.md")
FOLDERS = ("src", "tests", "docs", "experiments", "benchmarks")


def paths_in(text: str) -> set[str]:
    """Paths of this repository that a page names: in backticks, or as the target of a link."""
    named = re.findall(r"`([\w./-]+)`|\]\(([\w./-]+)\)", text)
    paths = {first or second for first, second in named}
    return {path for path in paths if path.partition("/")[0] in FOLDERS or re.fullmatch(r"[A-Z]+\.md", path)}


@pytest.mark.parametrize("page", PAGES)
def test_paths_exist(page):
    """Every file and folder that a page names is there."""
    named = paths_in((REPOSITORY / page).read_text("utf-8"))

    assert named
    assert not [path for path in named if not (REPOSITORY / path).exists()]


def test_a_path_that_is_not_there_is_seen():
    """Paths in backticks and in links; words and commands are none."""
    text = "`src/gone.py`, [page](docs/gone.md), `README.md`, `make demo`, `predictions.csv`, [site](https://x.org)"

    assert paths_in(text) == {"src/gone.py", "docs/gone.md", "README.md"}


def test_the_readme_lays_out_every_room():
    """Folders and modules of the package, each named once."""
    drawing = re.search(r"```\n(cli/.*?)```", (REPOSITORY / "README.md").read_text("utf-8"), re.DOTALL)
    assert drawing is not None
    drawn = re.findall(r"^([\w.]+/?)  |(?<=  )(\w+\.py)|^(\w+\.py)", drawing[1], re.MULTILINE)
    source = REPOSITORY / "src" / "he2her2"
    there = [f"{path.parent.name}/" for path in source.glob("*/__init__.py")]
    there += [path.name for path in source.glob("*.py") if not path.name.startswith("__")]

    assert sorted("".join(names) for names in drawn) == sorted(there)


def test_the_readme_uses_the_face_of_the_package():
    """Its example of Python needs one import, and calls what the face offers."""
    [example] = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text("utf-8"), re.DOTALL)
    tree = ast.parse(example)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    calls = re.findall(r"he2her2\.(\w+)", example)

    assert [ast.unparse(node) for node in imports] == ["import he2her2"]
    assert set(calls) <= set(he2her2.__all__)
    assert all(callable(getattr(he2her2, name)) for name in calls)


def test_the_columns_of_predictions_are_told():
    """All of them, and no other, as programs read them by name."""
    page = (REPOSITORY / "docs/files.md").read_text("utf-8")
    table = page.partition("Columns of `predictions.csv`:")[2].partition("`--json`")[0]
    named = re.findall(r"`(\w+)`", "\n".join(line.partition(" | ")[0] for line in table.splitlines()))

    assert named == list(PREDICTION_COLUMNS)
