"""HER2 status and stratum from IHC and ISH, by ASCO/CAP.

Sources, cited by these names:

- ASCO/CAP 2018: Wolff et al., J Clin Oncol 2018;36:2105-2122 (Arch Pathol Lab Med 2018;142:1364-1382).
- ASCO/CAP 2023: Wolff et al., J Clin Oncol 2023;41:3867-3872, which affirms the 2018 rules unchanged.
- DESTINY-Breast04: Modi et al., N Engl J Med 2022;387:9-20 (HER2-low).
- DESTINY-Breast06: Bardia et al., N Engl J Med 2024;391:2110-2122 (HER2-ultralow).
- Oliveira et al., Appl Sci 2020;10:4728, section 5.4 (`Policy.PAPER`).
"""

from dataclasses import dataclass
from enum import StrEnum

from he2her2.labels.ish import Ish, IshCounts, IshGroup, IshResult
from he2her2.labels.scores import Her2Status, IhcScore, Policy

_ASCO_CAP = "ASCO/CAP 2018, affirmed 2023"
_PAPER = "Oliveira et al. 2020, section 5.4"
_LOW = "DESTINY-Breast04, Modi et al. 2022"
_ULTRALOW = "DESTINY-Breast06, Bardia et al. 2024"


class Stratum(StrEnum):
    """HER2 expression in the categories that treatment uses; these are no result categories of ASCO/CAP 2023.

    Attributes:
        NULL: IHC 0 without any staining.
        ULTRALOW: IHC 0 with faint, incomplete staining in at most 10 % of the cells (DESTINY-Breast06).
        ZERO_OR_ULTRALOW: IHC 0, and faint staining was not reported.
        LOW: IHC 1+, or 2+ that ISH finds not amplified (DESTINY-Breast04).
        POSITIVE: HER2 positive.
        UNDETERMINED: The tests leave it open.
    """

    NULL = "null"
    ULTRALOW = "ultralow"
    ZERO_OR_ULTRALOW = "zero or ultralow"
    LOW = "low"
    POSITIVE = "positive"
    UNDETERMINED = "undetermined"


@dataclass(frozen=True, slots=True)
class GuidelineResult:
    """Guideline's result for the tests of one sample.

    Attributes:
        status: HER2 status.
        stratum: HER2 stratum.
        group: ISH group; None where ratio and copies were not both given.
        rule: The rule behind the status, in words.
        source: Publication of that rule.
        conflict: IHC and ISH, each by itself, give different statuses.
    """

    status: Her2Status
    stratum: Stratum
    group: IshGroup | None
    rule: str
    source: str
    conflict: bool = False

    @property
    def stratum_source(self) -> str:
        """Publication that defines the stratum; a positive or undetermined one follows from the status."""
        if self.stratum in (Stratum.POSITIVE, Stratum.UNDETERMINED):
            return self.source
        return _LOW if self.stratum == Stratum.LOW else _ULTRALOW


def apply_guideline(
    ihc: IhcScore | None,
    ish: Ish | None = None,
    *,
    stated: IshResult | None = None,
    faint_staining: bool | None = None,
    recounted: bool = False,
    policy: Policy = Policy.GUIDELINE,
) -> GuidelineResult:
    """Apply the guideline to the tests of one sample.

    Args:
        ihc: IHC score; None where it was not done.
        ish: ISH result; None where it was not done.
        stated: Result that the report states beside counts, see `settled_ish`; None where it states none.
        faint_staining: Whether an IHC 0 shows any faint staining; None where not reported.
        recounted: Whether counts of groups 2 to 4 with IHC 2+ are those of the blinded recount of at least 20 cells
            that the guideline requires (ASCO/CAP 2018, Figures 4 to 6); without it they leave the status open.
        policy: Whether an IHC 2+ without a decisive ISH stays undetermined or counts as positive.

    Returns:
        Status and stratum with the rule behind them; what the tests leave open is `UNDETERMINED`.

    Raises:
        ValueError: A score, result or policy is none, such as the number 3 or the word "Positive"; `parse_ihc` and
            `parse_ish` read what tables write.

    Example:
        >>> decision = apply_guideline(IhcScore.TWO, IshCounts(ratio=2.3, copies=4.5))
        >>> decision.group, decision.status, decision.stratum
        (<IshGroup.GROUP_1: 1>, <Her2Status.POSITIVE: 'positive'>, <Stratum.POSITIVE: 'positive'>)
    """
    ihc = None if ihc is None else IhcScore(ihc)
    ish = ish if ish is None or isinstance(ish, IshCounts) else IshResult(ish)
    stated, policy = None if stated is None else IshResult(stated), Policy(policy)
    found = settled_ish(ihc, ish, stated, recounted=recounted) if isinstance(ish, IshCounts) else ish
    status, rule = _status(ihc, found, recounted=recounted)
    if found is not ish and ihc != IhcScore.THREE:
        rule = f"ISH {ish} leaves the status open, and the report states the result: {rule}"
    source = _ASCO_CAP
    if policy == Policy.PAPER and status == Her2Status.UNDETERMINED and ihc == IhcScore.TWO:
        status, rule, source = Her2Status.POSITIVE, "an uncertain IHC 2+ counts as positive", _PAPER
    return GuidelineResult(
        status,
        stratum_of(ihc, status, faint_staining=faint_staining),
        ish.group if isinstance(ish, IshCounts) else None,
        rule,
        source,
        conflict=_conflict(ihc, found),
    )


def settled_ish(
    ihc: IhcScore | None, counts: IshCounts, stated: IshResult | None, *, recounted: bool = False
) -> IshCounts | IshResult:
    """ISH result of a sample whose report gives counts and states a result.

    The counts decide wherever the guideline gives a status by them, with the IHC where it asks for that. Where they
    leave it open (group 2 to 4 without IHC, or with IHC 2+ before the recount; a ratio or copies alone that fit several
    groups), what the report states is the end of the steps that the guideline asks for, and stands.

    Args:
        ihc: IHC score; None where it was not done.
        counts: The counts.
        stated: The stated result; an equivocal one is no end.
        recounted: The counts are of the recount that groups 2 to 4 require.
    """
    if stated not in (IshResult.POSITIVE, IshResult.NEGATIVE):
        return counts
    if ihc == IhcScore.THREE or counts.single_probe_result is IshResult.EQUIVOCAL:
        is_open = counts.alone is None
    else:
        is_open = _status(ihc, counts, recounted=recounted)[0] == Her2Status.UNDETERMINED
    return stated if is_open else counts


def doubt_about_stated(ihc: IhcScore | None, counts: IshCounts, stated: IshResult, *, recounted: bool = False) -> str:
    """Difference of a stated ISH result from its counts, and which of them is taken; empty where they agree.

    Args:
        ihc: IHC score, by which groups 2 to 4 are called; None where it was not done.
        counts: The counts.
        stated: The stated result; an equivocal one contradicts nothing.
        recounted: The counts are of the recount that groups 2 to 4 require.

    Example:
        >>> doubt_about_stated(IhcScore.TWO, IshCounts(2.3, 3.5), IshResult.POSITIVE)[:61]
        'ISH is stated positive, but ratio 2.3 copies 3.5 with IHC 2+ '
    """
    if stated is IshResult.EQUIVOCAL:
        return ""
    if counts.alone is not None:
        return "" if stated is counts.alone else f"ISH is stated {stated}, but {counts} are {counts.alone}"
    called = _status(ihc, counts, recounted=True)[0]
    is_called = ihc not in (None, IhcScore.THREE) and counts.single_probe_result is None
    if not is_called or called == Her2Status.UNDETERMINED or called.value == stated.value:
        return ""
    found = f"ISH is stated {stated}, but {counts} with IHC {ihc} are {called}"
    if settled_ish(ihc, counts, stated, recounted=recounted) is counts:
        return found
    return f"{found} unless the recount changed them; the stated result is taken"


def _status(ihc: IhcScore | None, ish: Ish | None, *, recounted: bool) -> tuple[Her2Status, str]:
    """Status by the guideline, and the rule behind it."""
    if ihc == IhcScore.THREE:
        return Her2Status.POSITIVE, "IHC 3+ is positive, whatever ISH says"
    if not isinstance(ish, IshCounts):
        return _by_result(ihc, ish)
    if (result := ish.single_probe_result) is not None:
        status, rule = _by_result(ihc, result)
        return status, f"single-probe ISH with {ish} is {result}: {rule}"
    found = [_by_group(ihc, group, recounted=recounted) for group in ish.possible_groups]
    if len({status for status, _ in found}) > 1:
        return Her2Status.UNDETERMINED, f"ISH {ish} alone may be {_groups(ish)}, which differ: copies are needed"
    if ish.group is None:
        status = found[0][0]
        return status, f"ISH {ish} alone may be {_groups(ish)}, each of which is {status} with IHC {ihc or 'not done'}"
    return found[0]


def _groups(ish: IshCounts) -> str:
    """The ISH groups that fit counts.

    Example:
        >>> _groups(IshCounts(1.2, None))
        'group 3, 4 or 5'
    """
    *first, last = (str(group.value) for group in ish.possible_groups)
    return f"group {', '.join(first)} or {last}"


def _by_result(ihc: IhcScore | None, result: IshResult | None) -> tuple[Her2Status, str]:
    """By IHC up to 2+ and a stated ISH result (ASCO/CAP 2018, Figures 1 and 2, and the ISH report categories)."""
    if result == IshResult.POSITIVE:
        return Her2Status.POSITIVE, "ISH positive is positive"
    if result == IshResult.NEGATIVE:
        return Her2Status.NEGATIVE, "ISH negative, and IHC not 3+, is negative"
    if ihc is None:
        tests = "ISH equivocal" if result else "no test"
        return Her2Status.UNDETERMINED, f"{tests} without IHC decides nothing"
    if ihc == IhcScore.TWO:
        return Her2Status.UNDETERMINED, f"IHC 2+ is equivocal, and ISH {'is so too' if result else 'is missing'}"
    return Her2Status.NEGATIVE, f"IHC {ihc} is negative"


def _by_group(ihc: IhcScore | None, group: IshGroup, *, recounted: bool) -> tuple[Her2Status, str]:
    """By IHC up to 2+ and an ISH group (ASCO/CAP 2018, Figure 3)."""
    name = f"ISH group {group.value}"
    if group == IshGroup.GROUP_1:
        return Her2Status.POSITIVE, f"{name} is positive"
    if group == IshGroup.GROUP_5:
        return Her2Status.NEGATIVE, f"{name}, and IHC not 3+, is negative"
    return _by_rare_group(ihc, group, recounted=recounted)


def _by_rare_group(ihc: IhcScore | None, group: IshGroup, *, recounted: bool) -> tuple[Her2Status, str]:
    """By IHC up to 2+ and an ISH group from 2 to 4 (ASCO/CAP 2018, Figures 4 to 6)."""
    name = f"ISH group {group.value}"
    if ihc is None:
        return Her2Status.UNDETERMINED, f"{name} needs IHC on the same sample"
    if ihc != IhcScore.TWO:
        return Her2Status.NEGATIVE, f"{name} with IHC {ihc} is negative, with a comment"
    if not recounted:
        return Her2Status.UNDETERMINED, f"{name} with IHC 2+ needs a blinded recount of at least 20 cells"
    if group == IshGroup.GROUP_3:
        return Her2Status.POSITIVE, f"{name} with IHC 2+, unchanged by the recount, is positive"
    return Her2Status.NEGATIVE, f"{name} with IHC 2+, unchanged by the recount, is negative, with a comment"


def stratum_of(ihc: IhcScore | None, status: Her2Status, *, faint_staining: bool | None = None) -> Stratum:
    """Stratum of a sample of known status; IHC 3+ that is stated negative contradicts itself and has none.

    Args:
        ihc: IHC score; None where it was not done.
        status: HER2 status.
        faint_staining: Whether an IHC 0 shows any faint staining; None where not reported.

    Raises:
        ValueError: A score or status is none, such as the number 3.
    """
    ihc, status = None if ihc is None else IhcScore(ihc), Her2Status(status)
    if status == Her2Status.POSITIVE:
        return Stratum.POSITIVE
    if status == Her2Status.UNDETERMINED or ihc in (None, IhcScore.THREE):
        return Stratum.UNDETERMINED
    if ihc != IhcScore.ZERO:
        return Stratum.LOW
    if faint_staining is None:
        return Stratum.ZERO_OR_ULTRALOW
    return Stratum.ULTRALOW if faint_staining else Stratum.NULL


def _conflict(ihc: IhcScore | None, ish: Ish | None) -> bool:
    """Check for IHC 3+ with a negative ISH, and for IHC 0 or 1+ with a positive one."""
    if ihc in (None, IhcScore.TWO) or ish is None:
        return False
    status, _ = _status(None, ish, recounted=True)
    return status == (Her2Status.NEGATIVE if ihc == IhcScore.THREE else Her2Status.POSITIVE)
