"""Which steps a campaign file implies, by name and in order. Both sides derive them; nothing else is answered.

Each analysis says in its own file which steps it has and what they need; here they are only put in order.
"""

from __future__ import annotations

from fedage.common.analyses.base import Analysis
from fedage.common.analyses.definition import Definition, Step
from fedage.common.analyses.registry import of_campaign
from fedage.common.campaign.types import Campaign

CORRECTED_COLUMNS = ("corrected_years", "gap_years", "cole_gap_years")
"""Columns that are there once ages are corrected."""


def on_phantoms(campaign: Campaign) -> bool:
    """Whether the patients of a campaign are phantoms, as an analysis that it asks for says."""
    return any(each.phantoms for each in of_campaign(campaign))


def steps_of(campaign: Campaign, name: str) -> dict[str, Step]:
    """The steps of one analysis, by their names."""
    return _by_analysis(campaign).get(name, {})


def analysis_of_steps(campaign: Campaign) -> dict[str, Definition]:
    """The analysis that each step belongs to, those that cannot be computed among them."""
    by_name = {each.name: each for each in of_campaign(campaign)}
    computable = {step: by_name[name] for name, steps in _by_analysis(campaign).items() for step in steps}
    return computable | {step: each for each in by_name.values() for step in each.left_out(campaign)}


def about_steps(campaign: Campaign) -> dict[str, dict[str, object]]:
    """What the file asks for in each step, those that cannot be computed among them."""
    computable = {step: dict(each.about) for steps in _by_analysis(campaign).values() for step, each in steps.items()}
    return computable | {
        step: dict(each.about)
        for definition in of_campaign(campaign)
        for step, each in definition.left_out(campaign).items()
    }


def stages(campaign: Campaign) -> tuple[tuple[Analysis, ...], tuple[Analysis, ...]]:
    """The analyses after prediction, and those after bias correction; what a step needs is before it."""
    first: list[Analysis] = []
    second: dict[str, Analysis] = {}
    for steps in _by_analysis(campaign).values():
        for name, step in steps.items():
            if any(need in second or need in CORRECTED_COLUMNS for need in step.needs):
                second[name] = step.analysis
            else:
                first.append(step.analysis)
    return tuple(first), tuple(second.values())


def registered(campaign: Campaign) -> dict[str, Analysis]:
    """Every analysis of the campaign by its name."""
    return {analysis.name: analysis for stage in stages(campaign) for analysis in stage}


def left_out(campaign: Campaign) -> dict[str, str]:
    """What the file asks for and does not allow to compute: name of the step to the reason."""
    return {step: each.reason for one in of_campaign(campaign) for step, each in one.left_out(campaign).items()}


def _by_analysis(campaign: Campaign) -> dict[str, dict[str, Step]]:
    """The steps of each analysis, each after what it needs.

    Raises
    ------
    ValueError
        If two analyses have a step of the same name.
    """
    there: dict[str, Analysis] = {}
    by_analysis: dict[str, dict[str, Step]] = {}
    for definition in of_campaign(campaign):
        own = {step.analysis.name: step for step in definition.steps(campaign, there)}
        if taken := own.keys() & there.keys():
            raise ValueError(f"analysis {definition.name}: step {min(taken)} is another analysis' already")
        there |= {name: step.analysis for name, step in own.items()}
        by_analysis[definition.name] = own
    return by_analysis
