"""Names that are nearly the same: of patients, slides, cases or files, written in two ways."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from he2her2.errors import few_of, quoted
from he2her2.manifest.rows import Manifest

_ENDING = re.compile(
    r"(?:\.ome)?\.(?:svs|tiff?|btf|ndpi|mrxs|scn|bif|vms|vmu|svslide|dcm|czi|qptiff)$|\.ome$", re.IGNORECASE
)  # programs that cut the last ending leave .ome
_CROWD = 10  # times as many slides as the patient in the middle has
_FEWEST_PATIENTS = 3
_SHOWN = 5
_AS_NUMBER = re.compile(r"(?<=\d)\.0+$")  # of a spreadsheet that took a name for a number
_NOUGHT = re.compile(r"(?<=\d)o|o(?=\d)")
_LOOK_ALIKES = str.maketrans(
    "\u0430\u0432\u0435\u043a\u043c\u043d\u043e\u0440\u0441\u0442\u0443\u0445\u0456"  # Cyrillic
    "\u03b1\u03b2\u03b5\u03b6\u03b7\u03b9\u03ba\u03bc\u03bd\u03bf\u03c1\u03c4\u03c5\u03c7",  # Greek
    "abekmhopctyxiabezhikmnoptyx",
)
_BLOCK = re.compile(
    r"[\W_]+(?:[a-z]\d{0,2}|\d{1,2}[a-z]|[ivx]{1,4}|(?:block|slide|part|bl|sl)[\W_]*\w{1,3}|he|h&e|ihc|her2)"
    r"(?:[\W_]+\d{1,2})?$"
)  # behind an accession number; a number alone is one of the name's own unless the rest is a name, too
_NUMBER = re.compile(r"[\W_]+\d{1,2}$")
_FEWEST_DIGITS = 3  # of an accession number; S1-A and S1-B are patients of a site
_MOST_BLOCKS = 8  # of a patient; more names with one beginning are a study's or a site's
_ZEROS = re.compile(r"(?<![0-9])0+(?=[0-9])")


def without_ending(name: str) -> str:
    """A name without blanks around it and without the ending of a slide file.

    Example:
        >>> without_ending("case 7.ome.tiff")
        'case 7'
    """
    return _ENDING.sub("", name.strip())


def files_of_slides(files: Mapping[str, Path], slides: Mapping[str, Path]) -> dict[str, Path]:
    """Find each slide's file of tiles or annotations, by its name, else by that of its own file, as other programs do.

    Endings of slide files do not count where that leaves one choice: TRIDENT calls the tiles of `S1.ome.tif` `S1.ome`.

    Args:
        files: Files of tiles or annotations, by their names without ending.
        slides: File of each slide, by its name.

    Returns:
        File of each slide that has one.

    Example:
        >>> files_of_slides({"S1.ome": Path("S1.ome.h5")}, {"P7": Path("S1.ome.tif")})
        {'P7': PosixPath('S1.ome.h5')}
    """
    found = {slide_id: files[slide_id] for slide_id in slides if slide_id in files}
    for called in ({slide_id: slide_id for slide_id in slides}, {name: path.name for name, path in slides.items()}):
        bare: dict[str, tuple[list[str], list[Path]]] = defaultdict(lambda: ([], []))
        for slide_id, name in called.items():
            bare[without_ending(name)][0].append(slide_id)
        taken = set(found.values())
        for name, path in files.items():
            if path not in taken:
                bare[without_ending(name)][1].append(path)
        for slide_ids, paths in bare.values():
            if len(slide_ids) == len(paths) == 1:
                found.setdefault(slide_ids[0], paths[0])
    return found


def named_as(manifest: Manifest, names: Collection[str]) -> Manifest:
    """Give slides that differ from those of a run in the ending of a slide file only their names there; a note says so.

    Any other difference, such as letter case or lost zeros, may be that of two slides.

    Args:
        manifest: The manifest.
        names: Of the run's slides.
    """
    unknown = set(names) - {row.slide_id for row in manifest.rows}
    by_bare, asked = defaultdict(list), Counter(without_ending(row.slide_id) for row in manifest.rows)
    for slide_id in unknown:
        by_bare[without_ending(slide_id)].append(slide_id)
    renamed = {
        row.slide_id: by_bare[bare][0]
        for row in manifest.rows
        if row.slide_id not in names and len(by_bare.get(bare := without_ending(row.slide_id), ())) == 1 == asked[bare]
    }
    if not renamed:
        return manifest
    rows = tuple(replace(row, slide_id=renamed.get(row.slide_id, row.slide_id)) for row in manifest.rows)
    first = next(iter(renamed))
    note = f"{len(renamed)} slides are those of the run but for the ending ({first!r} is {renamed[first]!r})"
    return replace(manifest, rows=rows, notes=(*manifest.notes, note))


def loose_name(name: str) -> str:
    """Return a name without what people write differently: letter case, blanks, dashes, leading zeros, accents, letters
    of another script that look the same, O for 0, a spreadsheet's `.0`, and the ending of a slide file.

    Example:
        >>> loose_name("Case-007.svs") == loose_name("case 7")
        True
    """  # noqa: D205
    text = unicodedata.normalize("NFKD", _AS_NUMBER.sub("", without_ending(name))).casefold()
    text = "".join(char for char in text if not unicodedata.combining(char)).translate(_LOOK_ALIKES)
    text = _NOUGHT.sub("0", text)
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
    return tuple(tuple(group) for group in by_loose.values() if len(group) > 1 and not _numbered_apart(group))


def _numbered_apart(names: Iterable[str]) -> bool:
    """True where all names are of several numbers, and different ones: S1-11 and S11-1 are patients of two sites."""
    numbers = [tuple(map(int, re.findall(r"[0-9]+", name))) for name in names]
    return len({*numbers}) == len(numbers) and all(len(found) > 1 for found in numbers)


def block_groups(names: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Group names that may be of one patient: an accession number with different blocks or slides, or none, behind it.

    Example:
        >>> block_groups(["H1234-21", "H1234-21-B1", "B22/77 I", "B22/77 III", "H1234-22", "P-1", "P-10"])
        (('H1234-21', 'H1234-21-B1'), ('B22/77 I', 'B22/77 III'))
    """
    by_text = {" ".join(name.split()).casefold(): name for name in names}
    by_stem = defaultdict(list)
    for text, name in by_text.items():
        stem = _BLOCK.sub("", text)
        if stem == text and (bare := _NUMBER.sub("", text)) in by_text:
            stem = bare
        by_stem[stem].append(name)
    return tuple(
        tuple(group)
        for stem, group in by_stem.items()
        if 1 < len(group) <= _MOST_BLOCKS and sum(map(str.isdigit, stem)) >= _FEWEST_DIGITS
    )


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


def crowded_names(names: Iterable[str]) -> tuple[str, ...]:
    """Name patients that have so many slides, beside the others, that the name may stand for several.

    Example:
        >>> crowded_names(["P1", "P2", "P3", *["hospital"] * 10])
        ("patient 'hospital' has 10 of 13 slides, where most have 1: is it one patient?",)
    """
    counts = Counter(names)
    if len(counts) < _FEWEST_PATIENTS:
        return ()
    usual = sorted(counts.values())[len(counts) // 2]
    total = sum(counts.values())
    crowded = [(name, n) for name, n in counts.most_common(_SHOWN) if n >= _CROWD * usual]
    return tuple(
        f"patient {quoted(name)} has {n} of {total} slides, where most have {usual}: is it one patient?"
        for name, n in crowded
    )


def pairs_in_words(pairs: Sequence[tuple[str, str]]) -> str:
    """Pairs of names for a message, cut short.

    Example:
        >>> pairs_in_words([("P1", "p-01")])
        "'P1' and 'p-01'"
    """
    return few_of([f"{quoted(first)} and {quoted(second)}" for first, second in pairs], _SHOWN)
