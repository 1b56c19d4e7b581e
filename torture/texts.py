"""Broken files as Hypothesis draws them: changed bytes and words, JSON with other values in its places, odd tables."""

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from hypothesis import strategies as st

Files: TypeAlias = st.SearchStrategy[bytes]
_Path: TypeAlias = tuple[str | int, ...]

WORDS = (
    *("", " ", "\n", "\r", "\t", "\0", "\x1b[2J", "\ufeff", "\u202e", "\u2028", "µ", "é", "\ud7ff", "😀"),
    *('"', '""', "'", ",", ";", "|", "\\", "/", "..", "../../x", "=cmd()", "@SUM(A1)", "#", "[", "]", "{", "}", "<"),
    *("0", "-1", "1.5", "1e999", "-inf", "nan", "NaN", "NA", "None", "true", "false", "null", "9" * 400, "0x10"),
    *("[" * 3000, "{'a':" * 500, "(" * 3000, "<a>" * 3000, "x" * 100_000, "a,b," * 5000, "1_000", ">"),
    *("<!DOCTYPE a [<!ENTITY b 'c'>]>", "&b;", "&#0;", "]]>", "<?xml version='1.0' encoding='utf-99'?>"),
)
"""Text that parsers stumble over."""

_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS) | st.text(max_size=20)
    | st.sampled_from([10**400, -(10**19), 1 << 63, 1e308, 5e-324]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


@st.composite
def edited(draw: Callable[[st.SearchStrategy[Any]], Any], sound: Sequence[bytes]) -> bytes:
    """A sound file with a few spans left out, doubled, or replaced by words and bytes."""
    data = draw(st.sampled_from(list(sound)))
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3, 6]))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from([0, 0, 1, 1, 2, 5, 20, 200, 5000])))
        put = draw(
            st.sampled_from([None, *(word.encode("utf-8", "surrogatepass") for word in WORDS)]) | st.binary(max_size=8)
        )
        data = data[:start] + (data[start:end] * 2 if put is None else put) + data[end:]
    return bytes(data)


@st.composite
def edited_json(draw: Callable[[st.SearchStrategy[Any]], Any], sound: Sequence[bytes]) -> bytes:
    """A sound JSON file with other values in a few places, or without them."""
    value = json.loads(draw(st.sampled_from(list(sound))))
    for _ in range(draw(st.integers(1, 4))):
        places = list(_places(value))
        value = _with_value(value, draw(st.sampled_from(places)), draw(st.just(...) | _values))
    return json.dumps(value).encode("utf-8", "surrogatepass")


def _places(value: object, path: _Path = ()) -> Iterator[_Path]:
    """Paths to a value and to all within it."""
    yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from _places(part, (*path, key))


def _with_value(value: Any, path: _Path, new: object) -> Any:  # noqa: ANN401  # JSON
    """JSON with another value in a place; `...` takes the place away."""
    if not path:
        return None if new is ... else new
    value = copy.deepcopy(value)
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    if new is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = new
    return value


@st.composite
def tables(draw: Callable[[st.SearchStrategy[Any]], Any], headings: Sequence[str], cells: Sequence[str]) -> bytes:
    """A table of known headings and cells among strange ones, with any delimiter, line end and encoding."""
    cell = st.sampled_from([*cells, *cells, *WORDS]) | st.text(max_size=10)
    heading = st.sampled_from([*headings, *headings, *headings, *WORDS])
    columns = draw(st.lists(heading, min_size=1, max_size=8))
    rows = draw(st.lists(st.lists(cell, max_size=9), max_size=8))
    delimiter, end = draw(st.sampled_from(",;\t|")), draw(st.sampled_from(["\n", "\r\n", "\r"]))
    preamble = draw(st.sampled_from(["", "sep=;\n", "# a comment\n", "\n", "Title\n"]))
    text: str = preamble + end.join(delimiter.join(row) for row in [columns, *rows])
    encoding: str = draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"]))
    return text.encode(encoding, "replace")
