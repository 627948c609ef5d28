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
    found = next(iter(results.of_type(RegionalResiduals).values()), None)
    if found is None:
        why = next(iter(steps.values())).not_computed
        return Display(sections=(Section(NAME, "Regional residuals", (Paragraph(why, missing=True),), place=55),))
    table = Table(NAME, _HEADERS, tuple(_rows(found)), why_empty="no region was compared")
    told = TitledTable(
        table, f"Regions, the {_MOST_ROWS} with the smallest p at most, against {found.column} = {found.reference:g}"
    )
    blocks: list[TitledTable | Paragraph] = [told, Paragraph(_note(found))]
    if found.eigenvectors:
        shares = tuple(
            (
                count(one.eigenvector),
                number(one.group, 0),
                number(one.mean, 3),
                number(one.sd, 3),
                words("steady" if one.is_steady else ""),
            )
            for one in found.eigenvectors
        )
        headers = ("eigenvector", found.column, "mean |cosine|", "SD", "")
        blocks.append(TitledTable(Table(f"{NAME}-eigenvectors", headers, shares), "Residuals along eigenvectors of C"))
    return Display(
        sentences=(_sentence(found),),
        terminal=(told,),
        sections=(Section(NAME, "Regional residuals", tuple(blocks), place=55),),
    )


def _rows(found: RegionalResiduals) -> Iterator[tuple[Cell, ...]]:
    by_p = sorted(found.regions, key=lambda each: (-each.models_differ, 1.0 if each.p is None else each.p))
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


def _sentence(found: RegionalResiduals) -> str:
    differ = sum(2 * region.models_differ > found.models for region in found.regions)
    return (
        f"Regional residuals differ between {found.column} groups in {differ} of {len(found.regions)} regions in most "
        f"of {found.models} model{'s' if found.models > 1 else ''} (p below {found.threshold:.2g}, Bonferroni)."
    )


def _note(found: RegionalResiduals) -> str:
    held = ", ".join(("site", *found.covariates)).replace("_years", "")
    return (
        f"{found.n_reference} patients of the reference and {', '.join(map(str, found.n))} of the diagnoses at "
        f"{found.sites} sites, with {held} held fixed. A residual says which regions make a brain look older or "
        "younger than its other regions do; residuals of a patient sum to 0."
    )
