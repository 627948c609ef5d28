"""Which sites took part in which step of a run, in words for the report, the comparison and the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from fedage.common.presentation.cells import POOLED, Cell
from fedage.common.presentation.wording import listed
from fedage.common.record.parts import SiteRecord
from fedage.common.record.results import Results

T = TypeVar("T")
EVERYTHING = "training and evaluation"
"""The role of a site whose policy answers every kind of message."""
TOOK_PART = frozenset({"took part", "dropped out"})
_TOO_FEW = "minimum-count"
"""The rule by which a site refuses a campaign for which it has too few patients."""
VALIDATION_ONLY = "validation only"
"""The role of a site that by the campaign file only validates."""
_NO_TRAINING = frozenset({"evaluation only", "analyses only", "answers offers only", VALIDATION_ONLY})


def participants(results: Results) -> list[SiteRecord]:
    """The sites that accepted the campaign, in the record's order."""
    return [site for site in results.sites if site.status in TOOK_PART]


def pooled_label(results: Results, step: str, *, by_site: Sequence[str] = ()) -> str:
    """What to call a figure over several sites: `all sites`, `2 of 3 sites`, or the one site's name.

    Parameters
    ----------
    step
        Registered name of the analysis.
    by_site
        The sites that have a figure of their own: used where the record does not name the contributing sites.
    """
    sites = results.contributors.get(step, tuple(by_site))
    everybody = len(participants(results))
    if not sites or (len(sites) >= everybody and len(sites) > 1):
        return "all sites"
    if len(sites) == 1:
        return sites[0] if everybody > 1 else "the only site"
    return f"{len(sites)} of {everybody} sites"


def is_pooled(results: Results, step: str, *, by_site: Sequence[str] = ()) -> bool:
    """Whether a figure over all contributing sites says more than one site's own figure."""
    return len(results.contributors.get(step, tuple(by_site))) != 1


def patients_told(site: SiteRecord) -> str:
    """How many patients a site brought: `<min` where that is withheld, `hidden`, or `-` of a site that never said."""
    if site.patients is not None:
        return str(site.patients)
    if site.hidden:
        return "hidden"
    said = site.status not in ("refused", "absent") or site.reason.startswith(_TOO_FEW)
    return "<min" if said else "-"


def hidden_note(results: Results) -> str:
    """What stands in the place of figures by site where single sites' sums were hidden; empty where they were not."""
    if not any(site.hidden for site in results.sites):
        return ""
    telling = sorted({site for step in results.analyses.values() for site in step.by_site})
    if telling:
        return f"By site: {listed(telling)} told theirs; the others' are hidden by secure aggregation."
    return "By site: hidden from the coordinator by secure aggregation; only sums over all sites were opened."


def training_text(results: Results) -> tuple[list[SiteRecord], str]:
    """The sites whose contribution is in every round, or every fold of an exact model, and a clause on the others.

    Returns
    -------
    sites, others
        `others` is empty, or e.g. `the updates of west are in 2 of 7 rounds; east only evaluated`.
    """
    took_part = participants(results)
    steps, unit, what = _contributions(results)
    if not steps:
        return took_part, ""
    counts = {site.name: sum(site.name in step for step in steps) for site in took_part}
    whole = [site for site in took_part if counts[site.name] == len(steps)]
    partly: dict[int, list[str]] = {}
    for site in took_part:
        if counts[site.name] < len(steps) and site.role not in _NO_TRAINING:
            partly.setdefault(counts[site.name], []).append(site.name)
    clauses = [
        f"the {what} of {listed(names)} are in {count or 'none'} of {len(steps)} {unit}"
        for count, names in sorted(partly.items(), reverse=True)
    ]
    for by_file, why in ((True, "and only validate by the campaign file"), (False, "by policy")):
        only = [s.name for s in took_part if s.role in _NO_TRAINING and (s.role == VALIDATION_ONLY) == by_file]
        if only:
            one = len(only) == 1
            said = why.replace("validate", "validates") if one else why
            clauses.append(f"{listed(only)} {'was' if one else 'were'} not trained on, {said}")
    return whole, "; ".join(clauses)


def _contributions(results: Results) -> tuple[list[tuple[str, ...]], str, str]:
    """The sites of each round, or of each fold of an exact model; what one is called; and what sites contribute."""
    if results.solved_exactly:
        known = [item.sites for item in results.preparation if item.sites]
        return known, "folds" if len(known) > 1 else "model", "sums"
    return [item.sites for item in results.rounds if item.sites], "rounds", "updates"


def alone(results: Results, sites: Sequence[str]) -> str:
    """The only site that a result rests on, where more took part in the run; else empty."""
    return sites[0] if len(sites) == 1 < len(participants(results)) else ""


def analysed(results: Results) -> str:
    """Who is analysed: without an estimator nobody was trained on, so everybody is."""
    return "test patients" if results.campaign.estimator else "patients"


def judged(results: Results) -> str:
    """Whose predicted ages are judged."""
    return f"{'healthy ' if results.campaign.train_on == 'healthy' else ''}{analysed(results)}"


def has_predicted_ages(results: Results) -> bool:
    """Whether there are predicted ages: of the campaign's model, or as the sites' tables bring them."""
    step = results.analyses.get("evaluation:test")
    return bool(results.campaign.estimator) or (step is not None and step.result is not None)


def drawn(results: Results) -> str:
    """Whom the figures by age show: they have no choice of the healthy, so they are of more people than the tables."""
    everyone = analysed(results)
    return f"All {everyone}, healthy or not," if results.campaign.train_on == "healthy" else f"All {everyone}"


def pooled_row(results: Results, step: str, by_site: list[str], overall: T) -> list[tuple[Cell, T]]:
    """The row over all contributing sites; none where that is one site, whose own row says the same."""
    if by_site and not is_pooled(results, step, by_site=by_site):
        return []
    return [(Cell(pooled_label(results, step, by_site=by_site), mark=POOLED), overall)]


def status(site: SiteRecord) -> str:
    """How it took part and why not; its role where that is not everything."""
    role = "" if site.role in ("", EVERYTHING) else f", {site.role}"
    return f"{site.status}{role}{': ' if site.reason else ''}{site.reason}"
