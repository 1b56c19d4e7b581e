"""Names that are nearly the same: of patients, slides or cases, written in two ways."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence

from he2her2.errors import quoted

_ENDING = re.compile(r"(?:\.ome)?\.(?:svs|tiff?|btf|ndpi|mrxs|scn|bif|vms|vmu|svslide|dcm|czi|qptiff)$", re.IGNORECASE)
_SHOWN = 5
_ZEROS = re.compile(r"(?<![0-9])0+(?=[0-9])")


def without_ending(name: str) -> str:
    """A name without blanks around it and without the ending of a slide file.

    Example:
        >>> without_ending("case 7.ome.tiff")
        'case 7'
    """
    return _ENDING.sub("", name.strip())


def loose_name(name: str) -> str:
    """Return a name without what people write differently: letter case, blanks, dashes, leading zeros, Unicode form
    and the ending of a slide file.

    Example:
        >>> loose_name("Case-007.svs") == loose_name("case 7")
        True
    """  # noqa: D205
    text = unicodedata.normalize("NFKC", without_ending(name)).casefold()
    parts = re.split(r"[\W_]+", text)
    return "".join(_ZEROS.sub("", part) for part in parts) or text or name


def near_groups(names: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Group names that differ only in how they are written; a name that is like no other is in no group.

    Example:
        >>> near_groups(["P1", "P2", "p-01", "P1"])
        (('P1', 'p-01'),)
    """
    by_loose = defaultdict(list)
    for name in dict.fromkeys(names):
        by_loose[loose_name(name)].append(name)
    return tuple(tuple(group) for group in by_loose.values() if len(group) > 1)


def near_misses(names: Iterable[str], others: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Find pairs of names that differ only in how they are written.

    Args:
        names: Names.
        others: Names to compare them with; one that is also in `names` is no near miss.

    Returns:
        Pairs of a name and another, in the order of `names`.

    Example:
        >>> near_misses(["P1", "P2"], ["P2", "p-01"])
        (('P1', 'p-01'),)
    """
    names, others = dict.fromkeys(names), dict.fromkeys(others)
    by_loose = defaultdict(list)
    for other in others:
        if other not in names:
            by_loose[loose_name(other)].append(other)
    return tuple((name, other) for name in names if name not in others for other in by_loose.get(loose_name(name), ()))


def pairs_in_words(pairs: Sequence[tuple[str, str]]) -> str:
    """Pairs of names for a message, cut short.

    Example:
        >>> pairs_in_words([("P1", "p-01")])
        "'P1' and 'p-01'"
    """
    shown = ", ".join(f"{quoted(first)} and {quoted(second)}" for first, second in pairs[:_SHOWN])
    return shown + (f" and {len(pairs) - _SHOWN} more" if len(pairs) > _SHOWN else "")
