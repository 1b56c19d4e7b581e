"""The pages for people name what is there."""

import argparse
import ast
import importlib
import json
import re
import shlex
from pathlib import Path

import pytest
from experiments.coverage.__main__ import read
from experiments.coverage.page import INTENDED, ours

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
    """Its example of Python needs one import of ours, calls what the face offers, and passes a type checker."""
    [example] = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text("utf-8"), re.DOTALL)
    tree = ast.parse(example)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    calls = re.findall(r"he2her2\.(\w+)", example)

    assert [ast.unparse(node) for node in imports] == ["from pathlib import Path", "import he2her2"]
    assert "Question(Path(" in example
    assert set(calls) <= set(he2her2.__all__)
    assert all(callable(getattr(he2her2, name)) for name in calls)


def test_the_columns_of_predictions_are_told():
    """All of them, and no other, as programs read them by name."""
    page = (REPOSITORY / "docs/files.md").read_text("utf-8")
    table = page.partition("Columns of `predictions.csv`:")[2].partition("`--json`")[0]
    named = re.findall(r"`(\w+)`", "\n".join(line.partition(" | ")[0] for line in table.splitlines()))

    assert named == list(PREDICTION_COLUMNS)


def anchor(heading):
    """Anchor of a heading, as GitHub and the site make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def test_anchors_exist():
    """Every link to a part of a page leads to a heading that is there."""
    pages = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *(REPOSITORY / "docs").glob("*.md")]
    texts = {page: page.read_text("utf-8") for page in pages}
    headings = {
        page: {anchor(line) for line in re.findall(r"^#+ (.*)$", text, re.MULTILINE)} for page, text in texts.items()
    }
    links = [
        (page, page.parent / file if file else page, part)
        for page, text in texts.items()
        for file, part in re.findall(r"\]\(([\w./-]*)#([\w-]+)\)", text)
    ]

    assert links
    assert not [(page.name, part) for page, target, part in links if part not in headings.get(target, {part})]


def measured_commands():
    """Module and words of every Python command of the page that says how each figure is measured again."""
    page = (REPOSITORY / "docs/measured.md").read_text("utf-8")
    return sorted(set(re.findall(r"`python -m (experiments\.\w+|benchmarks\.\w+) ?([^`]*)`", page)))


def test_the_commands_of_measured_figures_are_commands(monkeypatch):
    """Each is taken by its program as it stands on the page; nothing is run."""

    class TakenError(Exception): ...

    def taken(parser, words):
        parse(parser, words)
        raise TakenError

    parse = argparse.ArgumentParser.parse_args
    refused = []
    for module, words in measured_commands():
        monkeypatch.setattr(
            argparse.ArgumentParser, "parse_args", lambda parser, w=words: taken(parser, shlex.split(w))
        )
        package = importlib.import_module(module)
        program = importlib.import_module(f"{module}.__main__") if hasattr(package, "__path__") else package
        try:
            program.main()
        except TakenError:
            continue
        except SystemExit:
            refused.append(f"{module} {words}")

    assert not refused


def test_the_figures_of_measured_are_those_of_the_results():
    """Times and coverage as the files of results have them, no study left out."""
    page = (REPOSITORY / "docs/measured.md").read_text("utf-8")
    timed = {
        topic: json.loads((REPOSITORY / "benchmarks/results" / f"{topic}.json").read_text("utf-8"))["figures"]
        for topic in ("one_slide", "evaluating", "designs", "reading", "peers")
    }
    shares = [
        row.coverage
        for name, part in read(REPOSITORY / "experiments/results").items()
        if name != "promises"
        for row in ours(part.rows)
    ]
    low, high = INTENDED
    above, below = sum(share > high for share in shares), sum(share < low for share in shares)

    assert (
        f"| {timed['one_slide']['slide_s']:.1f} s; the paper's CNN {timed['designs']['slide_vs_released']:.1f} times"
        in page
    )
    assert f"| {timed['evaluating']['evaluate_s']:.0f} s of one core |" in page
    assert f"| {timed['reading']['stream_vs_openslide']:.1f} times as many tiles" in page
    assert f"{timed['peers']['peers_tiles']:.1f} times those of the best of six peers" in page
    assert f"{len(shares)} settings of simulated cohorts" in page
    assert f"| {len(shares) - above - below} cover 93-97 %, {above} more than that, {below} less" in page


def test_every_table_that_a_page_cites_has_its_line_among_the_measured():
    """With how to measure it again: that page says that it holds every figure."""
    cited = {
        page.name: set(re.findall(r"experiments/results/(\w+)(?:\.md|\.csv|/)", page.read_text("utf-8")))
        for page in [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")]
    }
    measured = cited.pop("measured.md") | {"paper_sized_gpu", "paper_sized_SIZE"}  # beside paper_sized_small

    assert measured
    assert {page: names - measured for page, names in cited.items() if names - measured} == {}


INTERVAL = re.compile(r"(-?\d*\.\d+)(?: %)? \((-?\d*\.\d+)(?: to |-|, )(-?\d*\.\d+)")
OF_THE_PAPER = {("0.31", "0.20", "0.46")}
"""The paper's own counts: 17 of 54 right."""


def test_every_figure_with_an_interval_is_one_that_was_measured():
    """It stands in a table of results, in the log or on a card: rounded perhaps, but not another one."""
    tables = [*(REPOSITORY / "experiments").rglob("*.md"), *(REPOSITORY / "src/he2her2/models").rglob("card.json")]
    texts = [table.read_text("utf-8") for table in tables]
    cards = [json.loads(text) for table, text in zip(tables, texts, strict=True) if table.name == "card.json"]
    as_logged = re.compile(INTERVAL.pattern.replace(r" \(", r"(?: \(|,\s+)"))  # 0.39, 0.20-0.62
    measured = {tuple(map(float, found)) for text in texts for found in as_logged.findall(text)}
    measured |= {(one["value"], one["low"], one["high"]) for card in cards for one in card["metrics"]}
    pages = [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")]
    told = {(page.name, found) for page in pages for found in INTERVAL.findall(page.read_text("utf-8"))}

    assert len(told) > 20
    assert not [
        (page, found)
        for page, found in told
        if found not in OF_THE_PAPER and not any(is_rounded(found, figures) for figures in measured)
    ]


def is_rounded(told, figures):
    """True if each number that is told is a figure to as many digits, give or take the rounding of the table."""
    return all(
        abs(float(text) - figure) <= 0.5001 * 10.0 ** -len(text.partition(".")[2])
        for text, figure in zip(told, figures, strict=True)
    )
