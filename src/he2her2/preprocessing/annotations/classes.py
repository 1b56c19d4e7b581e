"""Use of each class of an annotation file: tumour, cut out of it, or not used.

A class is tumour if its words say so in one of the languages below and nothing in them takes it back ("peritumoral",
"tumor-associated stroma", "suspicious for tumor"). Cut out of the tumour is what HER2 must not be scored on: what is
excluded or ignored by name (QuPath's `Ignore*`, `_2` of CAMELYON16), artefacts, holes, necrosis, carcinoma in situ, and
normal or benign tissue, which is drawn inside a tumour to take it out (CAMELYON17). All else, stroma and QuPath's
`Region*` among it, is context: it changes nothing, because a region of tumour has stroma in it.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache

from he2her2.errors import few_of

NO_CLASS = "(no class)"

_LONGEST_NAME = 80


class ClassUse(StrEnum):
    """Use of a class."""

    TUMOUR = "tumour"
    CUT_OUT = "cut out"
    NOT_USED = "not used"


_TUMOUR = (
    r"\btum(o|ou|eu)r|\bcancer|\bcancro|krebs\b|\bkanker|[ck]ar[cz]ino[om]|\bcarcin[oô]m|metasta|\bmalign|\bneoplas"
    r"|\binvasi[vf]|\binvaderende|\binfiltrati[nv]|\binfiltrant|\binfiltrierend|\bi[dl]c\b|\bnst\b|\bibc\b"
)
_NO = (
    r"non?|not|without|w o|free of|negative for|kein\w*|nicht|frei von|sans|pas de|exempte? de|sin|sem|senza"
    r"|libre de|livre de|libero da|geen|zonder|uden|uten|utan|inget|bez|except|other than|ausser|sauf|salvo"
    r"|excepto|exceto|tranne|eccetto|behalve"
)
_NOT_TUMOUR = (
    rf"(?<!\bnothing )\b({_NO}|(?:all|any|every)\w*(?: \w+)? but) ?({_TUMOUR})"
    rf"|({_TUMOUR})\w*? ?(free|frei(e[mnrs]?)?|absent)\b"
)
_LEFT_OUT = (
    r"\bignor|\bexcl|\besclu|ausschl|\bdiscard|\breject|\bdo not use|\bart[ei]fa[ckt]|\bfold(s|ed)?\b|\bcrush|\bblur"
    r"|\bout of focus\b|\bink\b|\bpen\b"
)
_IN_SITU = (
    r"\bin ?situ\b|\b(non|pre|pra) ?(invasi|infiltr)|\bpre (malign|cancer)|\b[dl]?cis\b"
    r"|\bintra ?(du[ckt]t|canal)|\b(lobular\w*|intra ?epith?eli\w*) neoplasi"
)  # intraductal carcinoma and lobular neoplasia are in situ, too
_SPARED = (
    rf"{_LEFT_OUT}|{_IN_SITU}|\bholes?\b|ne[ck]ro(s|t|z)|\bdebris|\bnormal"
    r"|\bbenign|\bgutartig|\bhealthy|\bgesund|\bsain|\bsan[ao]\b"
)
_NOT_SPARED = rf"\b({_NO}) ?({_SPARED})\w*( ?({_TUMOUR})\w*)?"  # "not intraductal" beside the invasive tumour
_BESIDE = (
    r"stroma|\blympho|\btils?\b|inflam|entzund|immun|fibro|adipo|\bfat\b|fett|\bmargins?\b|\bborder|\bfront\b|\bbed\b"
    r"|\badjacent|\bnear|\bnext to\b|\baround\b|peri ?tum|\boutside|\bausserhalb|\bhors\b|\bfuori\b"
    r"|\bfuera\b|\bbuiten|\bsuspic|\bpossibl|\bprobabl|\buncertain|\bunsure"
    rf"|\bunclear|\bregress|\bmimic|({_TUMOUR})\w* negative\b"
)
_KNOWN = (
    r"\btissue|\bgewebe|\btissu\b|\bbackground|\bglass|\bmuscle|\bnerve|\bvessel|\bblood|\bgland|epitheli|\bskin\b"
    r"|\bother\b|\brest\b|\broi\b|hyperplas|\badenosis|papillom"
)
_MIXED = r"\b(with|without|and|or|plus|mit|ohne|und|et|avec|y|con|e)\b"
_GROUPS = {"_0": ClassUse.TUMOUR, "_1": ClassUse.TUMOUR, "_2": ClassUse.CUT_OUT}  # of CAMELYON16
_UNCLASSIFIED = re.compile(
    r"|none|null|unclassified|undefined|no class|annotations?|layer|(annotation|region|layer|polygon|shape) ?\d+"
)


@lru_cache(maxsize=4096)
def use_of_words(name: str) -> ClassUse | None:
    """Use of a class by the words of its name; None where they say nothing. A derived class is read part by part.

    Example:
        >>> [use_of_words(name) for name in ("Tumor: Negative", "non-tumor", "Stroma", "A7")]
        [<ClassUse.TUMOUR: 'tumour'>, <ClassUse.CUT_OUT: 'cut out'>, <ClassUse.NOT_USED: 'not used'>, None]
    """
    found = [_use_of_part(part) for part in name.split(":")]
    return next((use for use in (ClassUse.CUT_OUT, ClassUse.NOT_USED, ClassUse.TUMOUR) if use in found), None)


def _use_of_part(name: str) -> ClassUse | None:
    words = _words(name)
    without = re.sub(_NOT_SPARED, "", words)
    words = without if re.search(_TUMOUR, without) else words
    is_tumour, is_spared = re.search(_TUMOUR, words), re.search(_SPARED, words)
    is_mixed = is_tumour and is_spared and (re.search(_MIXED, words) or set("+&/") & set(name))
    is_doubtful = re.search(_BESIDE, words) or (is_tumour and "?" in name)
    found: ClassUse | None = None
    if name.strip() in _GROUPS:
        found = _GROUPS[name.strip()]
    elif re.search(_NOT_TUMOUR, words) or (is_spared and not is_mixed):
        found = ClassUse.CUT_OUT
    elif is_mixed or is_doubtful:
        found = ClassUse.NOT_USED
    elif is_tumour:
        found = ClassUse.TUMOUR
    elif re.search(_KNOWN, words):
        found = ClassUse.NOT_USED
    return found


def is_doubtful(name: str, use: ClassUse) -> bool:
    """True of a class that is no example of other tissue, though it is not used as tumour.

    That is what is ignored or excluded by name, artefacts, and what speaks of tumour without being it for certain or
    by the user's choice.

    Example:
        >>> is_doubtful("Ignore*", ClassUse.CUT_OUT), is_doubtful("Normal", ClassUse.CUT_OUT)
        (True, False)
    """
    words = _words(name)
    if use is ClassUse.CUT_OUT:
        return name.strip() in _GROUPS or re.search(_LEFT_OUT, words) is not None
    return use is ClassUse.NOT_USED and (name.strip() in _GROUPS or re.search(_TUMOUR, words) is not None)


def _words(name: str) -> str:
    """Lower-case words without accents, with single blanks: "Invasive_Tumör" and "InvasiveTumor" are the same."""
    plain = "".join(char for char in unicodedata.normalize("NFKD", name) if not unicodedata.combining(char))
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", plain)
    return " ".join(re.findall(r"[^\W_]+", apart.casefold()))


def is_unclassified(name: str) -> bool:
    """True of a name that a program gives to regions without a class, such as "None", "Layer 1" or "Annotation 0"."""
    return name.strip() not in _GROUPS and _UNCLASSIFIED.fullmatch(_words(name)) is not None


def class_of(group: str, own: Sequence[str], chosen: Sequence[str]) -> str:
    """The class of a region: its group, or else an own name that says what it is, or else `NO_CLASS`.

    A group that is a number, which may count regions, gives way to such a name.

    Args:
        group: Class, group or layer of the region.
        own: Names of the region itself.
        chosen: Classes that the user chose as tumour; they may be such names.
    """
    says_nothing = is_unclassified(group)
    if not says_nothing and (not group.strip().isdecimal() or _is_chosen(group, chosen)):
        return in_short(group)
    spoken = (name for name in own if use_of_words(name) is not None or _is_chosen(name, chosen))
    return next((in_short(name) for name in spoken), NO_CLASS if says_nothing else in_short(group))


def in_short(name: str) -> str:
    """A name in short: on one line, without control characters, and not longer than a line."""
    line = "".join(char if char.isprintable() else " " for char in name[: 2 * _LONGEST_NAME])
    return " ".join(line.split())[:_LONGEST_NAME]


def uses_of_classes(names: Iterable[str], chosen: Sequence[str] = ()) -> dict[str, ClassUse]:
    """Use of the classes of a file.

    Regions without a class are the tumour where all classes beside them, if any, are cut out; else they are not used.

    Args:
        names: Classes by `class_of`.
        chosen: The classes that count as tumour, with those derived from them; by their words if empty.

    Example:
        >>> list(uses_of_classes(["Tumor", "Ignore*", "Region*"]).values()) == ["tumour", "cut out", "not used"]
        True
    """
    names = list(dict.fromkeys(names))
    by_words = {name: use_of_words(name) or ClassUse.NOT_USED for name in names}
    if chosen:
        spared = {name: use if use is ClassUse.CUT_OUT else ClassUse.NOT_USED for name, use in by_words.items()}
        return spared | {name: ClassUse.TUMOUR for name in names if _is_chosen(name, chosen)}
    if NO_CLASS in by_words and all(use is ClassUse.CUT_OUT for name, use in by_words.items() if name != NO_CLASS):
        by_words[NO_CLASS] = ClassUse.TUMOUR
    return by_words


def _is_chosen(name: str, chosen: Sequence[str]) -> bool:
    """True where a name is one of the chosen classes or derived from one: "tumor" chooses "Tumor: Positive"."""
    parts = [_words(part) or part.strip() for part in name.split(":")]
    wanted = [[_words(part) or part.strip() for part in choice.split(":")] for choice in chosen]
    return any(parts[: len(choice)] == choice for choice in wanted)


def in_words(counts: Mapping[str, int]) -> str:
    """Classes with the number of their regions, such as "Normal (1), Stroma (2)"; the most frequent first, up to 20."""
    return few_of([f"{name} ({n})" for name, n in Counter(counts).most_common()], 20)
