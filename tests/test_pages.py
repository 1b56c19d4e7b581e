"""Templates become text: strictly, escaped where it is HTML, without gaps where it is Markdown."""

from pathlib import Path

import jinja2
import pytest

from he2her2 import pages


@pytest.fixture
def templates(monkeypatch):
    """A way to write templates that `render` finds instead of the package's."""

    def write(**texts: str) -> None:
        named = {name.replace("_", "."): text for name, text in texts.items()}
        monkeypatch.setattr(pages, "_ENVIRONMENT", pages._ENVIRONMENT.overlay(loader=jinja2.DictLoader(named)))

    return write


def test_an_unknown_name_is_an_error(templates):
    """A template never prints nothing for a value that was forgotten."""
    templates(page_md="{{ missing }}", deep_md="{{ given.missing }}")

    with pytest.raises(jinja2.UndefinedError, match="missing"):
        pages.render("page.md")
    with pytest.raises(jinja2.UndefinedError, match="missing"):
        pages.render("deep.md", given=object())


def test_tags_of_values_are_text(templates):
    """In HTML and in Markdown, where they would vanish on the page; what is no tag stays as it is."""
    templates(page_html="{{ text }}", page_md="{{ text }}")

    assert pages.render("page.html", text="<b>") == "&lt;b&gt;\n"
    assert pages.render("page.md", text="<b>s & t</b> at p < 0.1, x<5") == "\\<b>s & t\\</b> at p < 0.1, x<5\n"


def test_a_cell_of_several_lines_is_one(templates):
    """Spreadsheets have such cells, and a row of a Markdown table is a line."""
    templates(page_md="{{ [['a\\nb', 1]] | table(['x', 'n']) }}")

    assert pages.render("page.md").splitlines()[-1] == "| a b | 1 |"


def test_blocks_that_print_nothing_leave_no_gap(templates):
    """A page has single blank lines and one newline at its end, whatever its blocks leave out."""
    templates(
        page_md="# Head\n\n{% if false %}\nno\n{% endif %}\n\n{% for x in [] %}\n{{ x }}\n{% endfor %}\n\nend\n\n\n"
    )

    assert pages.render("page.md") == "# Head\n\nend\n"


def test_numbers_and_shares(templates):
    """Filters round; a share is given in per cent."""
    templates(page_md="{{ x | percent }} {{ x | percent(1) }} {{ x | fixed(3) }} {{ x | significant(2) }}")

    assert pages.render("page.md", x=0.12345) == "12 % 12.3 % 0.123 0.12\n"
    assert pages.render("page.md", x=1234.5) == "123450 % 123450.0 % 1234.500 1234\n"


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (0.031415, "0.031 p = 0.031"),
        (0.049961, "0.04996 p = 0.04996"),
        (0.0503, "0.0503 p = 0.0503"),
        (0.05, "0.05 p = 0.05"),
        (0.0, "< 0.0001 p < 0.0001"),
        (float("nan"), "unknown p unknown"),
    ],
)
def test_a_p_value_shows_its_side_of_005(templates, p, text):
    """None is 0, and none that is below 0.05 or above reads as 0.05."""
    templates(page_md="{{ p | p_value }} {{ p | p_value_in_words }}")

    assert pages.render("page.md", p=p) == f"{text}\n"


def test_a_table_aligns_figures_and_keeps_its_columns(templates):
    """The first column is text, the others figures, unless said; a bar inside a cell does not open a column."""
    templates(page_md='{{ rows | table(["figure", "n"]) }}\n\n{{ rows | table(["a", "b"], align="cl") }}')

    first, second = pages.render("page.md", rows=[("a|b", 3)]).rstrip("\n").split("\n\n")

    assert first.splitlines() == ["| figure | n |", "|:--|--:|", "| a\\|b | 3 |"]
    assert second.splitlines()[1] == "|:-:|:--|"


def test_a_paragraph_is_one_line(templates):
    """Sentences may stand on several lines of a template."""
    templates(page_md="{{ text | paragraph }}")

    assert pages.render("page.md", text="\nOne\nsentence.\n\n  Another. ") == "One sentence. Another.\n"


def test_a_command_can_be_pasted(templates):
    """Also where a path has a blank."""
    templates(page_md="{{ path | shell }}\n{{ command | shell }}\n")

    text = pages.render("page.md", path=Path("my run"), command=("he2her2", "predict", "a b.svs", "--threads=2"))

    assert text == "'my run'\nhe2her2 predict 'a b.svs' --threads=2\n"


def test_words_in_backticks_are_code_and_the_rest_is_escaped():
    """A remedy names a command; a slide's name cannot smuggle markup in."""
    find = pages._ENVIRONMENT.from_string("{{ text | with_code }}").render

    assert find(text="look with `he2her2 inspect`") == "look with <code>he2her2 inspect</code>"
    assert find(text="<b>`<i>`</b>") == "&lt;b&gt;<code>&lt;i&gt;</code>&lt;/b&gt;"
