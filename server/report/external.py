"""What a run found at the sites that only validate, apart from those that trained: the same tables and figures."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial

from fedage.common.presentation.blocks import Block, FigureBlock, Folded, Paragraph, Section, TitledTable
from fedage.common.presentation.participation import TOOK_PART, VALIDATION_ONLY
from fedage.common.presentation.wording import listed
from fedage.server.record.results import Results
from fedage.server.report.shown import shown_of
from fedage.server.report.withheld_text import sections_of

_PREFIX = "external-"
HEADING = "External validation: sites that only validate, whose patients nothing was made of"


def external_of(results: Results) -> Results | None:
    """The record of the sites that only validate, as if they were all; None where nobody validates beside others."""
    if not results.external:
        return None
    sites = tuple(site for site in results.sites if site.role == VALIDATION_ONLY and site.status in TOOK_PART)
    # Judged by one model that was made without any of them, as by a bundle.
    final = {"bundle": "the final model"} if results.campaign.final_model else {}
    campaign = results.campaign.model_copy(update=final)
    return results.model_copy(
        update={
            "analyses": results.external,
            "external": {},
            "sites": sites,
            "campaign": campaign,
            "preparation": (),
            "rounds": (),
        }
    )


def sentences(results: Results) -> list[str]:
    """What came out there, each sentence with whose it is."""
    beside = external_of(results)
    if beside is None:
        return []
    names = listed([site.name for site in beside.sites]) if beside.sites else "no site"
    return [f"External validation ({names}): {sentence}" for each in shown_of(beside) for sentence in each.sentences]


def sections(results: Results) -> list[Section]:
    """The report's sections of them, under headings of their own."""
    beside = external_of(results)
    if beside is None:
        return []
    return [
        replace(
            section,
            name=f"{_PREFIX}{section.name}",
            heading=f"External validation: {section.heading}",
            blocks=tuple(map(_beside, section.blocks)),
        )
        for section in sections_of(beside, shown_of(beside))
    ]


def _beside(block: Block) -> Block:
    """A block whose names in the page are not those of the same block of the sites that train."""
    return Folded(block.summary, tuple(map(_leaf, block.blocks))) if isinstance(block, Folded) else _leaf(block)


def _leaf(block: FigureBlock | TitledTable | Paragraph) -> FigureBlock | TitledTable | Paragraph:
    if isinstance(block, TitledTable):
        return replace(block, table=replace(block.table, name=f"{_PREFIX}{block.table.name}"))
    return replace(block, draw=partial(_renamed, block)) if isinstance(block, FigureBlock) else block


def _renamed(figure: FigureBlock) -> str | None:
    if (svg := figure.svg) is None:
        return None
    return re.sub(r'( id="|url\(#|href="#)', rf"\1{_PREFIX}", svg)
