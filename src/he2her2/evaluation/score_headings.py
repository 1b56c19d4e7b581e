"""Headings of columns of scores: the class that one is of, or something other than HER2 that it is taken for."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

_QUANTITY = "p|prob|proba|probability|score|pred|prediction|softmax|sigmoid|output"
_OF_CLASS = f"{_QUANTITY}|her|class|status|label|group|expression|expressing|expressor|risk"
_LIKE_NEGATIVE = "low|ultralow|zero|null|no|false|normal|benign|absent|other|rest"
_LIKE_POSITIVE = "high|yes|true|present"
_NEGATIVE_WORDS = r"neg|n[eé]gat(?:i[vf]|yw)\w*|\w*(?:阴性|陰性|음성|отриц)\w*"
_POSITIVE_WORDS = r"pos|po[sz](?:iti[vf]|ytyw)\w*|amplified|amplification|overexpress\w*|\w*(?:阳性|陽性|양성|полож)\w*"
_MARKERS: Mapping[str, str] = {
    "the oestrogen receptor": r"er|esr 1|o?estrogen",
    "the progesterone receptor": "pr|pg ?r|progesterone",
    "hormone receptors": "hr|hormone receptors?",
    "the androgen receptor": "ar|androgen",
    "Ki-67": "ki 67|mib 1",
    "PD-L1": "pd l 1|pdl 1|cps|tps",
    "another gene": "t?p 53|brca|brca [12]|egfr|pik 3 ca|msi|tmb",
    "the subtype or grade": "luminal|basal|tnbc|pam 50|grade|nottingham",
    "lymphocytes": "s?tils?",
    "tumour": f"(?:tumou?r|cancer|malignan\\w+) (?:{_QUANTITY}|fraction|content|share|purity|cellularity|area)",
    "the course of the disease": "recurrence|relapse|survival|pcr|oncotype|odx",
}
_MEASURES: Mapping[str, str] = {
    "uncertainty": r"uncertain\w*|epistemic|aleatoric|entropy|variance|var|std|stdev|sd|deviation",
    "the confidence in the class that was called": (
        f"confidence|confidences|conf|certainty|(?:top|winning|max\\w*) (?:class )?(?:{_QUANTITY})|"
        f"(?:predicted|called) (?:class|label) (?:{_QUANTITY})"
    ),
    "something else": (
        r"loss|brier|ood|outlier|quality|age|runtime|seconds|mpp|p ?values?|ranks?|ranking|distances?|^area$|"
        r"(?:tissue|slide) area|(?:attention|attn)(?: scores?| weights?)?$"
    ),
}
"""Words of headings by what a column of them is of: markers count where HER2 is not named, measures always."""


@dataclass(frozen=True, slots=True)
class ScoreHeading:
    """Heading of a column of scores.

    Attributes:
        words: Its words in lower case, with "her" for HER2, and positive or negative for all words of these classes.
        named: Class: 0 negative, 1 positive, another digit, or an IHC score such as 1+; None where none is named.
        stem: The words without the class.
    """

    words: str
    named: str | None
    stem: str

    @property
    def is_negative(self) -> bool:
        """True if the score is higher for HER2-negative by its heading."""
        return self.named in ("0", "1+")

    @property
    def taken_for(self) -> str | None:
        """Something other than HER2, in words; None where nothing speaks for it."""
        kinds = {**({} if re.search(r"\bher\b", self.words) else _MARKERS), **_MEASURES}
        found = next((kind for kind, words in kinds.items() if re.search(rf"\b(?:{words})\b", self.words)), None)
        return None if found == "the confidence in the class that was called" and self.named == "1" else found


def read_heading(column: str) -> ScoreHeading:
    """Read a heading as people write it, such as P(HER2-), non_amplified_prob or class_0."""
    text, is_complement = _plain(column)
    words = _with_classes(" ".join(re.findall(r"[^\W\d_]+|\d+", text)))
    digit = re.search(r"\b(?:class|label|y) (\d)\b|(?<!\S)(\d)$|^(\d) (?=[^\W\d])", words)
    if found := re.search(r"\b(?:negative|positive)\b", words):
        named: str | None = {"negative": "0", "positive": "1"}[found[0]]
        stem = re.sub(r"\b(?:negative|positive)\b", "", words)
    elif found := re.search(r"\bihc(one|two|three)\b", words):
        named, stem = {"one": "1+", "two": "2+", "three": "3+"}[found[1]], words.replace(found[0], "")
    elif digit:
        at = next(k for k, part in enumerate(digit.groups(), start=1) if part)
        named, stem = digit[at], words[: digit.start(at)] + words[digit.end(at) :]
    else:
        named, stem = None, words
    if is_complement:
        named = "1" if named in ("0", "1+") else "0"
    return ScoreHeading(words, named, " ".join(stem.split()))


def _plain(column: str) -> tuple[str, bool]:
    """A heading in lower case, its signs of classes in words; True for "1 - ..." of something."""
    text = re.sub("[\u2010-\u2015\u2212]", "-", unicodedata.normalize("NFKC", column))
    text = re.sub(r"(?<![A-Za-z])(?:Pr(?![A-Za-z])|pr(?=\())", "p", text)  # not the progesterone receptor
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text).casefold()
    her2 = r"(?:her[\s_-]?2(?!\d)|c?-?erb[\s_-]?b[\s_-]?2)(?:[\s_/-]*neu\b)?"
    text = re.sub(rf"(?<![^\W\d_])({_QUANTITY}|non|not)?{her2}", lambda m: f"{m[1]} her#" if m[1] else "her#", text)
    less = re.match(r"\W*1\s*-\s*(?=[^\W\d_]|\()", text)
    text = text[less.end() :] if less else text
    for digit, word in (("1", "one"), ("2", "two"), ("3", "three")):
        text = re.sub(rf"(?<!\d){digit}\+", f" ihc{word} ", text)
    for sign, word in (("-", "negative"), (r"\+", "positive")):
        ends = rf"{sign}(?=\s*[)\]}}]|[\s_]*$|_)|(?<=[\w#)]){sign}(?=\s)"
        text = re.sub(rf"{sign}ve\b|{ends}" + (r"|(?<=#)\+" if word == "positive" else ""), f" {word} ", text)
    return text, less is not None


def _with_classes(words: str) -> str:
    """Words of a heading, those of the two classes as "negative" and "positive"."""
    classes = f"{_NEGATIVE_WORDS}|{_POSITIVE_WORDS}"
    words = re.sub(rf"\b(non|un|not)({classes})\b", r"\1 \2", words)
    known = f"{classes}|{_LIKE_NEGATIVE}|{_LIKE_POSITIVE}|er|pgr|confidence|uncertainty|entropy"
    words = re.sub(rf"\b({_QUANTITY})({known})\b", r"\1 \2", words)
    words = re.sub(rf"\b({known})({_QUANTITY})\b", r"\1 \2", words)
    for opposite, some, like in (
        ("positive", _NEGATIVE_WORDS, _LIKE_NEGATIVE),
        ("negative", _POSITIVE_WORDS, _LIKE_POSITIVE),
    ):
        word = {"positive": "negative", "negative": "positive"}[opposite]
        words = re.sub(rf"\b(?:non|un|not|no|without) (her )?(?:{some})\b", rf"\1class-{opposite}", words)
        words = re.sub(rf"\b({_OF_CLASS}) (?:{like})\b", rf"\1 class-{word}", words)
        words = re.sub(rf"\b(?:{like}) ({_OF_CLASS})\b|^(?:{like})$", rf"class-{word} \1", words)
        words = re.sub(rf"(?<!-)\b(?:{some})\b", f"class-{word}", words)
    words = re.sub(r"\b(?:non|not) her\b", "her class-negative", words)
    return " ".join(words.replace("class-", "").split())
