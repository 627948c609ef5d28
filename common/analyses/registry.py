"""Which analyses there are: FedAge's own, a line each, and those that installed packages bring."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable
from functools import cache
from importlib.metadata import entry_points

from fedage.common.analyses.definition import Definition
from fedage.common.campaign.types import Campaign
from fedage.common.errors import FedAgeError

GROUP = "fedage.analyses"
"""Entry points of this group are analyses of other packages, under their names."""
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_OWN_TABLE = "analyses"
_OWN = {
    "evaluation": ("evaluation.metrics", ""),
    "age-errors": ("evaluation.age_errors", _OWN_TABLE),
    "saliency": ("evaluation.saliency", _OWN_TABLE),
    "rank-correlation": ("evaluation.rank_correlation", _OWN_TABLE),
    "bias": ("bias.bias_line", ""),
    "predicted-by-age": ("evaluation.predicted_by_age", ""),
    "gap-by-age": ("bias.gap_by_age", ""),
    "error-curve": ("evaluation.error_curve", ""),
    "predicted-sd": ("evaluation.predicted_sd", ""),
    "site-probe": ("evaluation.likely_site", ""),
    "table-grid": ("survival.table_grid", "survival"),
    "cox": ("survival.cox", "survival"),
    "kaplan-meier": ("survival.kaplan_meier", "survival"),
    "groups": ("groups.group_difference", "groups"),
    "regional-residuals": ("groups.regional_residuals", _OWN_TABLE),
    "proportional-hazards": ("survival.proportional_hazards", _OWN_TABLE),
    "concordance": ("survival.concordance", _OWN_TABLE),
    "risk-discrimination": ("survival.risk_discrimination", _OWN_TABLE),
    "outcome-auc": ("groups.outcome_auc", _OWN_TABLE),
    "two-visits": ("groups.two_visits", _OWN_TABLE),
}
"""By name: the module in this folder, and the table of a campaign file without which the analysis has no step (a table
of its own below `[analyses]`; or none). A command that reads a campaign loads those alone that the campaign has."""


class AnalysisUnusable(FedAgeError):
    """An analysis of an installed package cannot be used; the message names it and the mend."""


@cache
def own() -> dict[str, Definition]:
    """FedAge's own analyses, by name, each after those that it builds on."""
    return {definition.name: definition for definition in in_order(_own(name) for name in _OWN)}


def of_campaign(campaign: Campaign) -> list[Definition]:
    """The analyses that a campaign may have steps of, each after those that it builds on.

    What the file asks for by a table of its own and is not installed here is left out: the file's check says so.

    Raises
    ------
    AnalysisUnusable
        If an installed package has one that is asked for, and it cannot be loaded, or is not one.
    """
    asked = campaign.analyses.asked_for()
    there = {"": True, _OWN_TABLE: False}
    implied = (n for n, (_, table) in _OWN.items() if there.get(table, getattr(campaign, table, None) is not None))
    loaded = {name: definition_of(name) for name in (*implied, *asked)}
    return in_order(each for each in loaded.values() if each is not None)


def names() -> list[str]:
    """The analyses that a file can ask for by a table of their own, installed packages' ones among them."""
    return sorted({name for name, definition in own().items() if definition.options is not None} | set(_points()))


def definition_of(name: str) -> Definition | None:
    """An analysis by its name; None if there is no such one here.

    A package's code is loaded only here, so only where a campaign file or a record names its analysis.

    Raises
    ------
    AnalysisUnusable
        If an installed package has it and it cannot be loaded, or is not one.
    """
    if name in _OWN:
        return _own(name)
    return _load(name) if name in _points() else None


def in_order(definitions: Iterable[Definition]) -> list[Definition]:
    """Definitions by place and name, each after those that it builds on.

    Raises
    ------
    AnalysisUnusable
        If some build on each other in a circle.
    """
    left = sorted(definitions, key=lambda each: (each.place, each.name))
    there = {each.name for each in left}
    done: dict[str, Definition] = {}
    while left:
        ready = next((each for each in left if all(n in done or n not in there for n in each.builds_on)), None)
        if ready is None:
            circle = ", ".join(each.name for each in left)
            raise AnalysisUnusable(f"the analyses {circle} build on each other in a circle; one has to come first")
        left.remove(ready)
        done[ready.name] = ready
    return list(done.values())


@cache
def _own(name: str) -> Definition:
    definition: Definition = importlib.import_module(f"{__package__}.{_OWN[name][0]}").ANALYSIS
    return definition


def _points() -> dict[str, str]:
    """Entry points of installed packages, name to what is loaded."""
    return {point.name: point.value for point in entry_points(group=GROUP)}


@cache
def _load(name: str) -> Definition:
    points = [point for point in entry_points(group=GROUP) if point.name == name]
    whose = " and ".join(point.dist.name for point in points if point.dist is not None) or "an installed package"
    if len(points) > 1:
        raise AnalysisUnusable(f"the packages {whose} each bring an analysis {name!r}; uninstall all but one")
    if not _NAME.fullmatch(name):
        raise AnalysisUnusable(f"analysis {name!r} of {whose}: a name has 1 to 63 lower-case letters, digits, hyphens")
    try:
        definition = points[0].load()
    except (ImportError, AttributeError) as error:
        raise AnalysisUnusable(f"analysis {name!r} of {whose} cannot be loaded: {error}; install it again") from error
    if not isinstance(definition, Definition) or definition.name != name or definition.options is None:
        raise AnalysisUnusable(
            f"analysis {name!r} of {whose}: {points[0].value} is no Definition of that name with options; an analysis "
            "of another package is asked for by a table of its own in the campaign file"
        )
    return definition
