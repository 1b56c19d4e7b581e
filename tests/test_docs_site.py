"""The documentation: it builds strictly, and every command in it is one that the program takes; the first pages run."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import typer.main

from he2her2.cli.commands import app
from he2her2.config import Config
from he2her2.phantom import make_spec, write_phantom
from tests.conftest import REPOSITORY
from tests.made_up_runs import MadeUpSlide, write_labels, write_run

DOCS = REPOSITORY / "docs"
PAGES = sorted(DOCS.glob("*.md"))
COMMAND = re.compile(r"^(?:[A-Za-z_]+=\S+ )*(?:\.venv/bin/)?he2her2 (.*)$")

needs_mkdocs = pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None, reason="no mkdocs: pip install --group docs"
)


def commands_in(page):
    """Command lines of a page, as words: those of its blocks of shell, and those named in its text."""
    text = page.read_text("utf-8")
    blocks = "\n".join(re.findall(r"```(?:sh|bash)\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    inline = re.findall(r"`(he2her2 [^`\n]+)`", text)
    return words_of(blocks.splitlines()), words_of(inline)


def words_of(lines):
    found = [match for line in lines if (match := COMMAND.match(line.strip()))]
    return [shlex.split(match[1], comments=True) for match in found]


@cache
def program():
    return typer.main.get_command(app)


def command_of(words):
    """The command that words name, its full name, and the words that are left."""
    command, name, rest = program(), "he2her2", list(words)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        command, name = command.commands[rest[0]], f"{name} {rest.pop(0)}"
    return command, name, rest


PAGES_WITH_README = [*PAGES, REPOSITORY / "README.md"]
BLOCKS = [(page.name, words) for page in PAGES_WITH_README for words in commands_in(page)[0]]
NAMED = [(page.name, words) for page in PAGES_WITH_README for words in commands_in(page)[1]]


def test_pages_hold_commands():
    """The search finds them."""
    assert len(BLOCKS) > 50
    assert len(NAMED) > 10
    assert ("your-slides.md", ["report", "run"]) in BLOCKS


@pytest.mark.parametrize(
    ("page", "words"), BLOCKS, ids=lambda value: " ".join(value) if isinstance(value, list) else value
)
def test_every_command_in_a_block_is_one_that_the_program_takes(page, words):
    """Its name, every argument and option, and values of the right type."""
    command, name, rest = command_of(words)

    command.make_context(name, rest)  # parses, without running; a mistake is an error


def test_no_command_in_a_block_needs_bash():
    """Brackets and stars are quoted: zsh, the shell of macOS, refuses a word with them that names no file."""
    pages = [*PAGES_WITH_README, *(DOCS / "generated").glob("*.md")]
    blocks = [
        block for page in pages for block in re.findall(r"```(?:sh|bash)\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    ]
    bare = [
        re.sub(r"'[^']*'|\"[^\"]*\"", "", line.partition(" #")[0]) for block in blocks for line in block.splitlines()
    ]

    assert len(bare) > 100
    assert not [line for line in bare if re.search(r"[\[\]*?]", line)]


def test_no_page_writes_two_things_into_one_folder():
    """Its commands are copied one after the other; only `predict` goes on in a folder that is there."""
    written = {(page, words[words.index("--out") + 1], *words) for page, words in BLOCKS if "--out" in words}
    places = sorted(where[:2] for where in written if where[2] != "predict")

    assert not [place for place, again in pairwise(places) if place == again]


def test_every_command_in_the_text_is_one_of_the_program():
    """Its name and its options; a synopsis may stand for values."""
    for page, words in NAMED:
        if words[0] == "COMMAND":
            continue
        command, _, rest = command_of(words)
        known = {option for one in command.params for option in one.opts} | {"--help"}

        assert {word.partition("=")[0] for word in rest if word.startswith("--")} <= known, (page, words)


@pytest.fixture(scope="module")
def reference():
    """The generator of pages."""
    spec = importlib.util.spec_from_file_location("reference", DOCS / "generated" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["reference"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["reference"]


@needs_mkdocs
def test_every_setting_and_command_has_its_line(reference):
    """Generated from docstrings: none is without a meaning, and none is left out."""
    pages = reference.pages()
    settings = [one for group in reference.method_settings() for one in group.settings]
    trained = [one for groups in reference.trainings().values() for group in groups for one in group.settings]

    assert {"threshold", "selection.n_tiles", "adaptive.seed", "runtime.precision"} <= {one.key for one in settings}
    assert len(settings) > len(vars(Config()))
    assert all(one.meaning for one in [*settings, *trained, *reference.phantom_dials().settings])
    assert all(f"## {command.name}\n" in pages["commands.md"] for command in reference.commands())
    assert all(command.meaning and all(o.meaning for o in command.options) for command in reference.commands())


@needs_mkdocs
def test_the_site_builds_strictly_and_loads_nothing(tmp_path):
    """No link leads nowhere, no page is left out of the contents, and no page asks another host for anything."""
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"],
        cwd=REPOSITORY, capture_output=True, text=True, check=False, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr

    pages = list((tmp_path / "site").glob("*.html"))
    loaded = [
        address
        for page in pages
        for address in re.findall(r"<(?:script|img|link)\b[^>]*\b(?:src|href)=\"([^\"]+)\"", page.read_text("utf-8"))
    ]

    assert {"index.html", "commands.html", "settings.html", "phantoms.html"} <= {page.name for page in pages}
    assert not [address for address in loaded if re.match(r"(?:https?:)?//", address)]


NOT_RUN = {"status many", "report many", "predict slides/", "view run"}
"""Of the page on one's own slides: the cohort and the server have tests of their own (test_cohort, test_viewer)."""


SMALL = ("--set", "tiling.min_tiles=300", "--set", "adaptive.iterations=5", "--set", "adaptive.points=50")


def test_the_page_on_ones_own_slides_runs(command_line, tmp_path, monkeypatch):
    """Every command of it in its order, on a slide and regions of those names; a small slide holds few tiles."""
    monkeypatch.chdir(tmp_path)
    spec = make_spec(seed=5, ihc_score="3+", signal=1.0, size_px=(3072, 2560), tumour_share=0.8, foci=1)
    write_phantom(Path("my-slide.svs"), spec, workers=1)
    Path("regions.geojson").write_text(
        '{"type":"FeatureCollection","features":[{"type":"Feature","properties":{"objectType":"annotation",'
        '"classification":{"name":"Tumor"}},"geometry":{"type":"Polygon","coordinates":'
        "[[[0,0],[3072,0],[3072,2560],[0,2560],[0,0]]]}}]}"
    )
    text = (DOCS / "your-slides.md").read_text("utf-8")
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    ran = []
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        if any(" ".join(words).startswith(start) for start in NOT_RUN):
            continue
        code, _, err = command_line(*words, *(SMALL if words[0] in ("segment", "predict") else ()))
        assert code == 0, f"{line}: {err}"
        ran.append(words[0])

    assert ran == ["inspect", "segment", "predict", "report", "export", "predict", "config", "predict", "predict"]
    assert Path("run/report/cases/my-slide.html").is_file()
    assert Path("for-qupath/my-slide.geojson").is_file()


def test_the_page_on_ones_own_cohort_runs_up_to_training(command_line, tmp_path, monkeypatch):
    """Plan, labels, check, leaks, split; and the evaluation and report of a run that is there."""
    monkeypatch.chdir(tmp_path)
    slides = [
        MadeUpSlide(f"s{k}", status=("negative", "positive")[k % 2], ihc_score=("0", "3+")[k % 2], probability=k / 20)
        for k in range(1, 20)
    ]
    write_labels(Path("cohort.csv"), [s for s in slides if s])
    for slide in slides:
        Path(f"{slide.slide_id}.tif").touch()
    write_run(Path("run"), slides)
    shutil.copy("cohort.csv", "split.csv")

    for words in (
        ["plan"],
        ["labels", "--ihc", "2+", "--ratio", "1.4", "--copies", "3.2"],
        ["manifest", "check", "cohort.csv"],
        ["evaluate", "run", "--manifest", "split.csv", "--out", "evaluation"],
        ["report", "run", "--evaluation", "evaluation"],
    ):
        assert ("your-cohort.md", words) in BLOCKS
        more = ["--no-leaks", "--audit-slides", "0"] if words[0] == "evaluate" else []
        code, _, err = command_line(*words, *more)
        assert code == 0, f"{words}: {err}"
