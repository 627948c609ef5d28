"""What a site's policy let it do, and where its audit log stood, as the report and a terminal say it."""

from __future__ import annotations

from fedage.common.presentation.participation import EVERYTHING, VALIDATION_ONLY
from fedage.common.presentation.wording import listed
from fedage.server.record.results import Results, SiteRecord

_EVALUATES = "evaluation only"
_DIGITS = 12

HEADS = (
    "The audit log's last line seen in this run, with the first digits of its hash, is kept by the coordinator, so "
    "that a log cut short or rewritten later shows (fedage site audit verify --head)."
)
PURPOSE = f"The role is what a site's own policy let it answer. {HEADS}"


def are_told(results: Results) -> bool:
    """Whether there is anything to tell: simulated sites have neither policy nor audit log."""
    usual = ("", EVERYTHING, VALIDATION_ONLY)  # the last is told by the file, in simulation too
    return any(site.audit_head is not None or site.role not in usual for site in results.sites)


def audit_head(site: SiteRecord) -> str:
    """E.g. `line 42, 3f0c9a1b22de…`; empty where none was seen."""
    head = site.audit_head
    return f"line {head.sequence}, {head.hash[:_DIGITS]}…" if head is not None else ""


def held_out(results: Results) -> list[str]:
    """Which sites hold patients out in some of the folds only, and what that means; nothing if there are none."""
    folds = results.campaign.model_folds
    few: dict[int, list[str]] = {}
    for site in results.sites:
        if folds and site.held_out_in_folds is not None and site.held_out_in_folds < folds:
            few.setdefault(site.held_out_in_folds, []).append(site.name)
    if not few:
        return []
    by_site = "; ".join(
        f"{listed(names)} hold{'s' if len(names) == 1 else ''} patients out in {count} of {folds} folds"
        for count, names in sorted(few.items(), reverse=True)
    )
    return [f"{by_site}: too few for more at the minimum count. In the other folds all of their patients may train."]


def curves(results: Results) -> str:
    """Whose figures by round are, against the final ones."""
    evaluating = [site.name for site in results.sites if site.role == _EVALUATES]
    final = "the final figures" if results.campaign.model_folds else "those of the last round, and the final figures,"
    names = f" ({', '.join(evaluating)} only evaluate{'s' if len(evaluating) == 1 else ''})" if evaluating else ""
    return f"The figures by round are of the sites that train; {final} are of all sites that evaluate{names}."
