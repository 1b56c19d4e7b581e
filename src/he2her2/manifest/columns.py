"""Columns of a table, which go by several names: matched loosely, and what was matched is told."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import TypeVar

from he2her2.errors import ManifestError, few_of, quoted
from he2her2.manifest.csv_tables import Table, TableRow, is_blank
from he2her2.manifest.rows import SPLITS, Stain

_T = TypeVar("_T")

_NUMBERED = re.compile(r" \(column \d+\)'*$")  # of a heading that comes again
_VALUE = r"(?:[0-3] *\+{0,3}|pos\w*|neg\w*|equivoc\w*|indeterm\w*|(?:not |non?[- ]?)?ampl\w*)"
_VALUES = re.compile(
    rf"[(\[] *{_VALUE}(?: *(?:[,;/|-]|\bto\b|\bor\b) *{_VALUE})+ *[)\]]$"
)  # that a heading says it holds
_HER2_LIKE = re.compile(r"her-?2|erbb2|(?<![a-z])neu(?![a-z])|ce(?:p|n|nt)[\W_]*17|d17z1")
_HER2_TEST = re.compile(
    r"immunohist|(?<![a-z])(ihc|ish|[fscd]ish)(?![a-z])"
    r"|^(?:(?:is|gene?|status|result)[\W_]+)*amplif[a-z]*(?:[\W_]+(?:gene?|status|result|ratio|level|test))*[\W_]*"
    r"(?:[(\[].*)?$"
)  # an amplification of no gene by name
_OTHER_MARKER = re.compile(
    r"(?<![a-z])(?:er|esr[\W_]*1|o?estrogen|pr|pgr|progesterone|ar|androgen|ki[\W_]*67|mib[\W_]*1|t?p[\W_]*53|pd[\W_]*l1|egfr)"
    r"(?![a-z])"
)  # whose test a heading names
_GENE = r"(?:her[\W_]*2(?:[\W_]*neu)?|(?:c[\W_]*)?erb[\W_]*b[\W_]*2|neu)"
_PROBE = r"(?:ce(?:p|n|nt|ntromere)[\W_]*17|d17z1)"  # of the centromere of chromosome 17
_LOOSE_PROBE = rf"(?:{_PROBE}|(?:chromoso[mn]e|chrom|chr|ch|c|se|cs)[\W_]*17)"  # such only behind the gene
_PROBES = re.compile(
    rf"(?<![a-z])(?P<gene>{_GENE})[\W_]*(?:(?:to|vs)[\W_]+)?{_LOOSE_PROBE}(?![0-9])|(?<![a-z]){_PROBE}(?![0-9])"
)
_RATIO_NAMES = tuple(
    dict.fromkeys(
        "_".join(filter(None, parts))
        for word in ("ratio", "signal_ratio", "")
        for method in ("", "ish", "fish", "sish", "cish", "dish", "mean", "average")
        for parts in permutations(("her2_cep17", word, method))
    )
)
TEST_SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "ihc_score": ("ihc_score", "ihc", "her2_ihc", "her2_ihc_score", "ihc_her2", "ihc_her2_score", "ihc_result"),
    "ish": (
        *("ish", "fish", "sish", "cish", "dish", "her2_ish", "her2_fish", "ish_her2", "fish_her2"),
        *("ish_result", "fish_result", "ish_status", "fish_status", "her2_ish_result", "her2_fish_result"),
        *("her2_ish_status", "her2_fish_status"),
    ),
    "ratio": (
        *("ratio", "ish_ratio", "fish_ratio", "her2_ratio", "her2_ish_ratio", "her2_fish_ratio", "cep17_ratio"),
        *_RATIO_NAMES,
    ),
    "copies": (
        *("copies", "her2_copies", "her2_copies_per_cell", "her2_copy_number"),
        *("her2_signals", "her2_signals_per_cell", "mean_her2_copies", "average_her2_copy_number", "ish_copies"),
        *("fish_copies", "her2_gene_copies", "her2_gene_copy_number", "average_her2_copies_per_cell"),
        *("her2_mean", "mean_her2", "her2_average", "average_her2", "her2_kopien", "her2_kopien_pro_zelle"),
        *("her2_signale", "her2_signale_pro_zelle", "copies_her2", "copias_her2"),
    ),
}
"""Usual names of the columns of HER2 tests, ours first."""

CEP17_SYNONYMS = (
    *("cep17", "cep17_copies", "cep17_signals", "cep17_per_cell", "cep17_signals_per_cell", "cep17_copies_per_cell"),
    *("cep17_copy_number", "mean_cep17", "average_cep17", "average_cep17_copy_number", "cen17", "cent17"),
    *("cep17_mean", "cep17_average"),
)
"""Usual names of the column of CEP17 signals per cell, which ratio and copies must fit."""

_STAIN_WORDS: Mapping[str, Stain] = {
    **dict.fromkeys(("he", "hande", "hematoxylineosin", "haematoxylineosin"), "HE"),
    **dict.fromkeys(("hematoxylinandeosin", "haematoxylinandeosin"), "HE"),
    **dict.fromkeys(("ihc", "her2", "her2ihc", "ihcher2"), "IHC"),
}
"""Words for a stain, by `bare_name`; IHC of another marker is none of ours."""

_GENE_WORD = "her2"
"""A word for a stain beside others; in a column of its own it may be the gene that a study is about."""

_TELLING_VALUES: Mapping[str, frozenset[str]] = {
    "split": frozenset(
        ("train", "training", "val", "valid", "validation", "dev", "tuning", "test", "testing", "holdout")
    ),
    "stain": frozenset(_STAIN_WORDS),
}
"""Values, by `_bare_value`, by which a column is known under any heading."""

_LOOKED_AT = 200  # rows
_SHORTEST = 5  # letters of a name that may be a misspelling
_SHOWN = 12


@dataclass(frozen=True, slots=True)
class TableColumns:
    """Columns of a table by field; see `match_columns`.

    Attributes:
        names: Field to column.
        problems: Cells that cannot be understood, a line each; filled while reading.
        notes: Columns that were found under another name than the field's, and those that look like a field and are
            not read.
    """

    names: Mapping[str, str]
    problems: list[str] = field(default_factory=list)
    notes: tuple[str, ...] = ()

    def text(self, row: TableRow, name: str) -> str:
        """A cell's text; empty where the table has no such column or the cell is blank."""
        cell = row.text(self.names.get(name))
        return "" if is_blank(cell) else cell

    def value(self, row: TableRow, name: str, parse: Callable[[str], _T]) -> _T | None:
        """A cell's value; None where it is blank, and a problem where it cannot be understood."""
        text = self.text(row, name)
        if not text:
            return None
        try:
            return parse(text)
        except ValueError as error:
            self.problems.append(f"line {row.line}: {self.names[name]}: {error}")
            return None


_LIKE_OURS = {
    "mpp": re.compile("mpp|micron|pixel|resolution|[µμ]m|um_p"),
    "annotations": re.compile("annot|region|roi|mask|geojson|outline"),
    "her2_status": re.compile(r"^(label|status|outcome|target|(ground[\W_]*)?truth)$"),
    "site": re.compile(r"cent(er|re)\b|hospital|institut|laborator|clinic\b"),
}
"""Words of headings that may be a field which is missed otherwise."""


def match_columns(
    table: Table,
    synonyms: Mapping[str, Sequence[str]],
    given: Mapping[str, str | None] | None = None,
    *,
    required: Sequence[str] = (),
    ordered: bool = False,
    remedy: str = "rename the one that is meant, or add it",
) -> TableColumns:
    """Find a table's columns by the names that they usually have; letter case, blanks and punctuation are ignored.

    Args:
        table: The table.
        synonyms: Field to its usual names, best first.
        given: Field to the column that the user names; None leaves it to the synonyms.
        required: Fields that the table must have.
        ordered: Take the best of a field's names that are there, as in a public table whose fields are known. Otherwise
            only the first, our own, is taken for itself, if it is written exactly so; two others must hold the same.
        remedy: Advice on a missing column; "{field}" stands for the field.

    Raises:
        ManifestError: A required column, or one that the user names, is not there, or two columns match one field and
            differ: all problems.
    """
    by_bare = defaultdict(list)
    for column in table.columns:
        by_bare[_matched_name(column)].append(column)
    names: dict[str, str] = {}
    problems: list[str] = []
    for name, known in synonyms.items():
        wanted = (given or {}).get(name)
        usual = (wanted,) if wanted is not None else known
        matched = (by_bare.get(_matched_name(word), ()) for word in usual)
        found = [wanted] if wanted in table.columns else [column for columns in matched for column in columns]
        found = sorted(dict.fromkeys(found), key=lambda column: column != known[0])
        if found:
            bare = _matched_name(found[0])
            alone = ordered or wanted is not None or known[0] in found
            rivals = [column for column in found if not alone or _matched_name(column) == bare]
            problems += _differences(table, name, rivals)
            names[name] = found[0]
        elif wanted is not None:
            problems.append(f"has no column {wanted!r} for {name}; it has {shown_columns(table.columns)}")
    if missing := [name for name in required if name not in names and (given or {}).get(name) is None]:
        advice = "; ".join(dict.fromkeys(remedy.format(field=name) for name in missing))
        problems.append(f"has no column {', '.join(missing)}; it has {shown_columns(table.columns)}; {advice}")
    if problems:
        raise ManifestError([f"{table.path}: {problem}" for problem in problems])
    return TableColumns(names, list(table.problems), (*table.notes, *_notes(table, synonyms, names)))


def shown_columns(columns: Sequence[str]) -> str:
    """The columns of a table for a message, cut short."""
    more = len(columns) - _SHOWN
    shown = columns if more <= 1 else columns[:_SHOWN]
    named = ", ".join(name if len(name) < 60 else quoted(name) for name in shown)
    return named if more <= 1 else f"{named} and {more} more"


def is_about_her2(column: str) -> bool:
    """Check if a heading looks like one of HER2 tests.

    Example:
        >>> is_about_her2("HER2_fish_status"), is_about_her2("gene amplification"), is_about_her2("MYC amplification")
        (True, True, False)
        >>> is_about_her2("IHC"), is_about_her2("ER_Status_By_IHC"), is_about_her2("IHC ER, PR, HER2")
        (True, False, True)
    """
    name = column.lower()
    tests = _HER2_TEST.search(name) is not None and _OTHER_MARKER.search(name) is None
    return tests or _HER2_LIKE.search(name) is not None


def _differences(table: Table, name: str, columns: Sequence[str]) -> Iterator[str]:
    """A problem where columns that match one field differ; without rows they cannot be told apart."""
    first, *others = columns
    for other in others:
        line = next((row.line for row in table.rows if row.text(first) != row.text(other)), None)
        if line is None and table.rows:
            continue
        where = "" if line is None else f", and differ on line {line}"
        if _NUMBERED.sub("", other) == _NUMBERED.sub("", first):
            yield f"has the column {_NUMBERED.sub('', first)!r} twice{where}; rename one"
        else:
            yield f"has two columns for {name}, {first!r} and {other!r}{where}; rename the one that is not meant"


def _notes(table: Table, synonyms: Mapping[str, Sequence[str]], names: Mapping[str, str]) -> Iterator[str]:
    """Columns found under other names, and columns that look like a field and are not read."""
    if other := [f"{name} from {column!r}" for name, column in names.items() if name != column]:
        yield f"columns: {', '.join(other)}"
    unused = [column for column in table.columns if column not in set(names.values())]
    misspelt = _misspelt(unused, synonyms)
    missing = [column for column in unused if misspelt.get(column) not in (None, *names)]
    if missing:
        pairs = few_of([f"{column!r} (is it {misspelt[column]}?)" for column in missing], _SHOWN)
        yield f"columns that look like one of ours and are not read: {pairs}; rename them if they are meant"
    for name, words in _LIKE_OURS.items():
        like = [column for column in unused if column not in missing and words.search(column.casefold())]
        if like and name in synonyms and name not in names:
            yield f"columns that may be {name} are not read: {shown_columns(like)}; rename one to {name} if it is"
    yield from _values_of_ours(table, unused, [name for name in synonyms if name not in names])
    her2 = [column for column in unused if column not in missing and is_about_her2(column)]
    if her2:
        yield f"columns about HER2 that are not read: {shown_columns(her2)}"


def _values_of_ours(table: Table, unused: Sequence[str], fields: Iterable[str]) -> Iterator[str]:
    """Columns that hold nothing but the values of a field that was not found, such as "set" with train and test."""
    rows = table.rows[:_LOOKED_AT]
    for name in fields:
        known = _TELLING_VALUES.get(name, frozenset())
        for column in unused if known else ():
            values = {text.casefold() for row in rows if (text := row.text(column))}
            bare = {_bare_value(text) for text in values}
            if bare <= known and bare - {_GENE_WORD}:
                shown = few_of(sorted(values), 3)
                words = "" if name != "split" or values <= {*SPLITS} else f", and write {', '.join(SPLITS)}"
                yield f"column {column!r} is not read and holds {shown}: is it {name}? Rename it if it is meant{words}"


def _misspelt(columns: Iterable[str], synonyms: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The field that each column's name nearly names: two names that are alike once a letter of each is left out."""
    known = {
        part: name for name, usual in synonyms.items() for word in usual for part in _shortened(bare_name(word))
    }  # fmt: skip
    found = {}
    for column in columns:
        if name := next((known[part] for part in _shortened(bare_name(column)) if part in known), None):
            found[column] = name
    return found


def _shortened(word: str) -> Iterator[str]:
    """The word, and the word without any one of its letters; nothing for short words."""
    if _SHORTEST <= len(word) <= 60:
        yield word
        yield from (word[:i] + word[i + 1 :] for i in range(len(word)))


def _matched_name(name: str) -> str:
    """A bare name without the values behind it, and with one name for the probes of chromosome 17 and HER2 before them.

    Example:
        >>> _matched_name("FISH HER-2/neu : CEN 17"), _matched_name("D17Z1 copies"), _matched_name("chr17")
        ('fishher2cep17', 'cep17copies', 'chr17')
        >>> _matched_name("HER2 IHC (0, 1+, 2+, 3+)"), _matched_name("HER2 FISH (ratio)")
        ('her2ihc', 'her2fishratio')
    """
    text = _VALUES.sub("", unicodedata.normalize("NFKC", _NUMBERED.sub("", name)).casefold())
    return bare_name(_PROBES.sub(lambda found: "her2cep17" if found["gene"] else "cep17", text))


def stain_of(text: str) -> Stain | None:
    """Stain that a word means; None for others.

    Example:
        >>> stain_of("H & E"), stain_of("HER2 IHC"), stain_of("HER2+")
        ('HE', 'IHC', None)
    """
    return _STAIN_WORDS.get(_bare_value(text))


def _bare_value(text: str) -> str:
    """A value as `bare_name` has it, unless a sign ends it: "HER2+" and "HER2-" are no HER2."""
    return bare_name(text) if text[-1:].isalnum() else text


def bare_name(name: str) -> str:
    """Return a column's name without what people write differently.

    Example:
        >>> bare_name("HER2 Status") == bare_name("her2_status") == bare_name("HER2-STATUS")
        True
    """
    text = unicodedata.normalize("NFKC", _NUMBERED.sub("", name)).casefold()
    return "".join(filter(str.isalnum, text)) or text
