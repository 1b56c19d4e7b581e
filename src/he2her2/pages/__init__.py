"""Reports for people: Markdown and HTML from the templates of this folder.

A template holds the words; code hands it typed values and never builds a page from strings:

    text = render("tile_training.md", report=report)

Templates lie in `pages/templates/`. A name that the template uses and nobody gave is an error, also of an attribute.
In HTML every value is escaped. In Markdown nothing is HTML: a tag, which can only be of a value, is text, and so are
the bars and line ends of `table`'s cells. Runs of blank lines become one, so a block that prints nothing leaves no gap.
Beside Jinja's own filters a template has:

    {{ 0.1234 | percent }}, {{ 0.1234 | percent(1) }}           12 %, 12.3 %
    {{ 0.1234 | fixed(3) }}                                     0.123
    {{ 0.1234 | significant }}, {{ 0.1234 | significant(2) }}   0.123, 0.12
    {{ 0.4996 | probability }}, {{ 0.4996 | probability(0.5) }} 0.500, 0.4996: on its side of a threshold
    {{ 0.0312 | p_value }}, {{ 0.0312 | p_value_in_words }}     0.031, p = 0.031; of 0: < 0.0001, p < 0.0001
    {{ 12345 | number }}                                        12 345, with no-break spaces
    {{ sentence | capitalize_first }}                           its first letter large, the others as they are
    {{ sentence | with_code }}                                  `words` of it as code, the others escaped
    {{ run.path | shell }}, {{ command | shell }}               a word, or all of a command, as a shell takes them
    {{ run.command | map("without_folders") }}                  paths without folders, which name users and patients
    {{ sentences | paragraph }}                                 one line, line ends and runs of blanks become a blank
    {{ rows | table(["figure", "n"]) }}                         a Markdown table, first column left, the others right
    {{ rows | table(["figure", "n"], align="ll") }}             the same with every column's side given: l, r or c

An estimate prints itself: `{{ auc.text(3) }}` gives `0.714 (0.600 to 0.800)`, `{{ sensitivity.percent() }}` gives
`88 % (47 to 100 %)`. What several templates share is a macro in `templates/macros.md`.
"""

import math
import re
import shlex
from collections.abc import Iterable, Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from he2her2.units import probability_text

__all__ = ["p_value", "p_value_in_words", "render", "without_folders"]

_TAG = re.compile(r"(?<!\\)<(?=[A-Za-z/!?])")
_ADDRESS = re.compile(r"(?:[^=]*=)?[a-z][a-z0-9+.-]+:/")
_LEAST_P = 1e-4
_ALPHA = 0.05
_MARKS = {"l": ":--", "r": "--:", "c": ":-:"}


def render(template: str, /, **values: object) -> str:
    r"""Text of a template, ending in one newline.

    Args:
        template: Name of a file in `pages/templates/`; its ending says whether it is Markdown or HTML.
        values: What the template may use, by name.

    Raises:
        jinja2.UndefinedError: The template uses something that was not given.

    Example:
        >>> render("notices.md", notices=["phantom weights"])
        '> **NOTICE: phantom weights**\n'
    """
    text = _ENVIRONMENT.get_template(template).render(values)
    if template.endswith(".md"):
        text = _TAG.sub(r"\\<", re.sub(r"\n{3,}", "\n\n", text).lstrip("\n"))
    return text.rstrip("\n") + "\n"


def _percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"


def _fixed(value: float, digits: int) -> str:
    return f"{value:.{digits}f}"


def _significant(value: float, digits: int = 3) -> str:
    whole = len(f"{abs(value):.0f}") if math.isfinite(value) else 0  # digits before the point are all told
    return f"{value:.{max(digits, whole)}g}"


def p_value(p: float) -> str:
    """A p-value to two digits, or to as many as show the side of 0.05 on which it lies."""
    if math.isnan(p):
        return "unknown"
    if p < _LEAST_P:
        return f"< {_LEAST_P:.4f}"
    digits = next(k for k in range(2, 18) if float(f"{p:.{k}g}") != _ALPHA or p == _ALPHA)
    return f"{p:.{digits}g}"


def p_value_in_words(p: float) -> str:
    """A p-value as a sentence has it.

    Example:
        >>> [p_value_in_words(p) for p in (0.0312, 0.04996, 0.0, math.nan)]
        ['p = 0.031', 'p = 0.04996', 'p < 0.0001', 'p unknown']
    """
    text = p_value(p)
    return f"p = {text}" if text[0].isdigit() else f"p {text}"


def _number(value: int) -> str:
    return f"{value:,}".replace(",", "\u202f")


def _capitalize_first(text: str) -> str:
    return text[:1].upper() + text[1:]


def _with_code(text: str) -> Markup:
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704  escaped


def _shell(words: object) -> str:
    return shlex.join(words) if isinstance(words, tuple | list) else shlex.quote(str(words))


def without_folders(word: str) -> str:
    """A word of a command, or a path, without folders; an address without its query, which may hold a signature.

    Example:
        >>> without_folders("--out=/home/me/run"), without_folders("https://me:secret@a.org/b.svs?key=secret")
        ('--out=run', 'b.svs')
    """
    plain = word.partition("?")[0] if _ADDRESS.match(word) else word
    return re.sub("[^=]*/", "", plain.rstrip("/"))


def _paragraph(text: str) -> str:
    return " ".join(text.split())


def _table(rows: Iterable[Sequence[object]], heads: Sequence[str], align: str | None = None) -> str:
    marks = [_MARKS[mark] for mark in align or "l" + "r" * (len(heads) - 1)]
    lines = [_line(heads), f"|{'|'.join(marks)}|", *(_line(row) for row in rows)]
    return "\n".join(lines)


def _line(cells: Iterable[object]) -> str:
    return f"| {' | '.join(' '.join(str(cell).splitlines()).replace('|', chr(92) + '|') for cell in cells)} |"


_ENVIRONMENT = Environment(
    loader=PackageLoader("he2her2.pages"),
    autoescape=select_autoescape(["html"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_ENVIRONMENT.filters |= {
    "percent": _percent,
    "fixed": _fixed,
    "significant": _significant,
    "p_value": p_value,
    "p_value_in_words": p_value_in_words,
    "number": _number,
    "probability": probability_text,
    "capitalize_first": _capitalize_first,
    "paragraph": _paragraph,
    "shell": _shell,
    "with_code": _with_code,
    "without_folders": without_folders,
    "table": _table,
}
