"""Whose contributions are in a result and whose are not, and why: for the report and the end of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fedage.common.analyses.preparation import table_preparation
from fedage.common.presentation.blocks import Display, Paragraph, Section, merged
from fedage.common.presentation.participation import participants
from fedage.common.presentation.wording import listed
from fedage.server.record.results import Results, StepResult
from fedage.server.report import withheld_columns
from fedage.server.report.shown import step_text


@dataclass(frozen=True)
class WithheldContribution:
    """One contribution that some sites withheld.

    Parameters
    ----------
    step
        Its registered name.
    why
        Reason to the sites that gave it, in the record's order.
    counted
        The sites whose sums are in the result; None where the record does not say.
    asked
        How many sites took part in the run.
    """

    step: str
    why: dict[str, list[str]]
    counted: tuple[str, ...] | None
    asked: int
    step_text: str = ""
    """The step in its analysis' own words, where that is known."""

    @property
    def words(self) -> str:
        """What it is, e.g. `the Cox model by-site`."""
        return "the making of the model" if self.step == table_preparation.NAME else self.step_text or self.step

    @property
    def rests_on(self) -> str:
        """Whose sums are in the result, e.g. `10 of 17 sites` or `no site`; empty where the record does not say."""
        if self.counted is None:
            return ""
        if len(self.counted) == 1 < self.asked:
            return f"1 of {self.asked} sites, {self.counted[0]} alone"
        return f"{len(self.counted)} of {self.asked} sites" if self.counted else "no site"

    @property
    def said(self) -> str:
        """The beginning of a sentence on the result, e.g. ` rests on 10 of 17 sites; `."""
        if self.counted is None:
            return ": "
        if len(self.counted) == 1 < self.asked:
            return f" is that of {self.counted[0]} alone, 1 of {self.asked} sites, and pools nothing; "
        return f" rests on {self.rests_on}; " if self.counted else " has no result; "

    @property
    def sites(self) -> list[str]:
        """Everyone who withheld it, in order of name."""
        return sorted({site for sites in self.why.values() for site in sites})


def withholdings(results: Results) -> list[WithheldContribution]:
    """Every contribution that any site withheld, in order of its registered name."""
    steps: dict[str, dict[str, list[str]]] = {}
    for site in results.sites:
        for item in site.withheld:
            steps.setdefault(item.step, {}).setdefault(item.reason, []).append(site.name)
    counted, asked = _counted(results), len(participants(results))
    return [
        WithheldContribution(step, why, counted.get(step), asked, step_text(results, step))
        for step, why in sorted(steps.items())
    ]


def in_full(results: Results) -> list[str]:
    """A sentence a contribution, with every reason and the sites that gave it; and who took no part at all."""
    said = []
    for item in withholdings(results):
        by = "; ".join(f"by {listed(sites)}: {reason}" for reason, sites in item.why.items())
        said.append(f"{_capital(item.words)}{item.said}withheld {by}.")
    return [*withheld_columns.sentences(results), *said, *_no_part(results)]


def in_short(results: Results) -> list[str]:
    """A sentence a set of sites, without the reasons; and who took no part at all."""
    together: dict[tuple[object, ...], list[WithheldContribution]] = {}
    for item in withholdings(results):
        together.setdefault((*item.sites, item.rests_on), []).append(item)
    said = []
    for items in together.values():
        words, first = listed([item.words for item in items]), items[0]
        begun = first.said
        if len(items) > 1:
            for one, several in (("rests", "rest"), ("has", "have"), ("is that", "are those"), ("pools", "pool")):
                begun = begun.replace(f" {one} ", f" {several} ")
        said.append(f"{_capital(words)}{begun}{listed(first.sites)} withheld what is needed.")
    if said:
        said[-1] += " Why is told under Sites."
    return [*withheld_columns.sentences(results), *said, *_no_part(results)]


def _counted(results: Results) -> dict[str, tuple[str, ...]]:
    """The sites in a result, by step, where the record tells them."""
    counted: dict[str, tuple[str, ...]] = dict(results.contributors)
    counted |= {name: step.sites for name, step in results.analyses.items() if step.sites or step.not_computed}
    return counted


def sections_of(results: Results, shown: Sequence[Display]) -> list[Section]:
    """What analyses show in the report, each section with whose sums are not in it at its end."""
    sections = merged([section for each in shown for section in each.sections])
    return [replace(each, blocks=(*each.blocks, *_missing_in(results, each))) for each in sections]


def _missing_in(results: Results, section: Section) -> list[Paragraph]:
    if not section.withheld:
        return []
    kept = [
        site.model_copy(update={"withheld": tuple(item for item in site.withheld if item.step in section.withheld)})
        for site in results.sites
    ]
    analyses = {
        step: step_result
        for step, step_result in results.analyses.items()
        if step in section.withheld or not _lacks_columns(step_result)
    }
    made = tuple(item.model_copy(update={"withheld_columns": ()}) for item in results.preparation)
    of_section = results.model_copy(update={"sites": tuple(kept), "analyses": analyses, "preparation": made})
    return [Paragraph(sentence) for sentence in in_full(of_section)]


def _lacks_columns(step: StepResult) -> bool:
    return bool(getattr(step.result, "withheld_columns", ()))


def _no_part(results: Results) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for site in results.sites:
        if site.status in ("refused", "absent"):
            by_reason.setdefault(site.reason or site.status, []).append(site.name)
    return [f"{listed(sites)} took no part: {reason.rstrip('.')}." for reason, sites in by_reason.items()]


def _capital(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}"
