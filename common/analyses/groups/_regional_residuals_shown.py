"""What regional residuals of several diagnoses show: a sentence, and tables of regions and eigenvectors."""

from __future__ import annotations

from collections.abc import Iterator

from fedage.common.analyses.groups.regional_result import NAME, RegionalResiduals
from fedage.common.presentation.blocks import Display, Paragraph, Section, TitledTable
from fedage.common.presentation.cells import Cell, Table, count, number, p_value, words
from fedage.common.record.results import Results

_MOST_ROWS = 20
_HEADERS = ("region", "diagnosis", "difference, SD of age", "p", "models higher", "models lower", "p, all diagnoses")


def shown(results: Results) -> Display:
    """Everything, of a campaign that compares regions."""
    steps = results.steps_of(NAME)
    if not steps:
        return Display()
    result = next(iter(results.of_type(RegionalResiduals).values()), None)
    if result is None:
        why = next(iter(steps.values())).not_computed
        return Display(sections=(Section(NAME, "Regional residuals", (Paragraph(why, missing=True),), place=55),))
    table = Table(NAME, _HEADERS, tuple(_rows(result)), why_empty="no region was compared")
    by_region = TitledTable(
        table, f"Regions, the {_MOST_ROWS} with the smallest p at most, against {result.column} = {result.reference:g}"
    )
    blocks: list[TitledTable | Paragraph] = [by_region, Paragraph(_note(result))]
    if result.eigenvectors:
        shares = tuple(
            (
                count(one.eigenvector),
                number(one.group, 0),
                number(one.mean, 3),
                number(one.sd, 3),
                words("steady" if one.is_steady else ""),
            )
            for one in result.eigenvectors
        )
        headers = ("eigenvector", result.column, "mean |cosine|", "SD", "")
        blocks.append(TitledTable(Table(f"{NAME}-eigenvectors", headers, shares), "Residuals along eigenvectors of C"))
    return Display(
        sentences=(_sentence(result),),
        terminal=(by_region,),
        sections=(Section(NAME, "Regional residuals", tuple(blocks), place=55),),
    )


def _rows(result: RegionalResiduals) -> Iterator[tuple[Cell, ...]]:
    by_p = sorted(result.regions, key=lambda each: (-each.models_differ, 1.0 if each.p is None else each.p))
    for region in by_p[:_MOST_ROWS]:
        for one in region.diagnoses:
            yield (
                words(region.region),
                number(one.diagnosis, 0),
                number(one.difference_sd, 3),
                p_value(one.p),
                count(one.models_higher),
                count(one.models_lower),
                p_value(region.p),
            )


def _sentence(result: RegionalResiduals) -> str:
    differ = sum(2 * region.models_differ > result.models for region in result.regions)
    return (
        f"Regional residuals differ between {result.column} groups in {differ} of {len(result.regions)} regions in "
        f"most of {result.models} model{'s' if result.models > 1 else ''} (p below {result.threshold:.2g}, Bonferroni)."
    )


def _note(result: RegionalResiduals) -> str:
    held = ", ".join(("site", *result.covariates)).replace("_years", "")
    return (
        f"{result.n_reference} patients of the reference and {', '.join(map(str, result.n))} of the diagnoses at "
        f"{result.sites} sites, with {held} held fixed. A residual says which regions make a brain look older or "
        "younger than its other regions do; residuals of a patient sum to 0."
    )
