"""What a campaign file says of further analyses, `[analyses.NAME]`: each checks its own options."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fedage.common.campaign_file._sound import ValidValues
from fedage.common.toml.problems import Problem
from fedage.common.toml.tables import check_table
from fedage.common.toml.words import did_you_mean

if TYPE_CHECKING:
    from fedage.common.campaign.types import Campaign

ANALYSES = "analyses"


def analysis_problems(sound: ValidValues) -> Iterator[Problem]:
    """Unknown analyses, and wrong options of known ones."""
    if not sound.has(ANALYSES) or sound.wrong(ANALYSES):
        return
    # Imported here: only a file that asks for one needs to know them.
    from fedage.common.analyses import registry

    known = registry.names()
    for name, given in sound.tables[ANALYSES].items():
        key = f"{ANALYSES}.{name}"
        try:
            definition = registry.definition_of(name) if name in known else None
        except registry.AnalysisUnusable as error:
            yield Problem(key, f"[{key}]: {error}")
            continue
        if definition is None or definition.options is None:
            close = did_you_mean(name, known)
            mend = f"did you mean [{ANALYSES}.{close}]?" if close else f"known are {', '.join(known)}"
            yield Problem(key, f"[{key}]: no analysis of this name that is asked for so is installed here; {mend}")
            continue
        yield from check_table(key, given, definition.options).problems


def analyses_asked_for_by_name() -> list[str]:
    """The analyses that are installed here and asked for by a table of their own."""
    from fedage.common.analyses.registry import names

    return names()


def contradictory_analyses(campaign: Campaign) -> Iterator[Problem]:
    """Analyses that are asked for and have nothing to compute in this campaign, or options that it contradicts."""
    if not campaign.analyses.asked_for():
        return
    from fedage.common.analyses import registry
    from fedage.common.analyses.plan import steps_of

    for name in campaign.analyses.asked_for():
        definition, key = registry.definition_of(name), f"{ANALYSES}.{name}"
        if definition is None:
            continue
        yield from definition.problems(campaign)
        if not steps_of(campaign, name):
            yield Problem(
                key, f"[{key}] has nothing to compute: {definition.needs_in_words}; add it, or remove [{key}]"
            )
