"""The comparison of two groups, from what the analyses found to its part of the record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedage.common.analyses import plan
from fedage.common.analyses.group_difference import GROUPS, GROUPS_RAW
from fedage.common.campaign import Campaign
from fedage.server.analyses import Findings
from fedage.server.results import Difference, GroupDifference, Groups, SiteDifference

_ONE_GROUP = "it has patients of one group only, so it adds nothing to the difference"


def compared_groups(campaign: Campaign, findings: Findings) -> Groups | None:
    """The groups part of the record; None if the campaign asked for none."""
    groups = campaign.groups
    if groups is None:
        return None
    return Groups(
        column=groups.column,
        equals=groups.equals,
        reference=groups.reference,
        covariates=groups.covariates,
        corrected=_compared(GROUPS, findings),
        raw=_compared(GROUPS_RAW, findings) if GROUPS_RAW in plan.registered(campaign) else None,
    )


def _compared(step: str, findings: Findings) -> GroupDifference:
    by_site = _by_site(step, findings)
    found = findings.results.get(step)
    if found is None:
        return GroupDifference(by_site=by_site, not_computed=findings.not_computed.get(step, "the run ended before"))
    kept = ("gap", "n_group", "n_reference", "left_out", "left_out_few_sites", "one_group_only", "not_adjusted", "roc")
    all_pairs, within = _ends(found["auc_ci95"]), _ends(found["auc_within_sites_ci95"])
    aucs = ("auc", "auc_low", "auc_high", "auc_refused", "auc_within_sites")
    return GroupDifference(
        **{key: found[key] for key in (*kept, *aucs)},
        auc_ci95_low=all_pairs[0],
        auc_ci95_high=all_pairs[1],
        auc_within_sites_ci95_low=within[0],
        auc_within_sites_ci95_high=within[1],
        withheld_columns=tuple(found.get("withheld_columns", ())),
        adjusted=_difference(found),
        unadjusted=_difference(found["unadjusted"]),
        by_site=by_site,
    )


def _by_site(step: str, findings: Findings) -> dict[str, SiteDifference]:
    sites = {
        site: SiteDifference(not_computed=reasons[step])
        for site, reasons in findings.withheld.items()
        if step in reasons
    }
    sites |= {site: SiteDifference(not_computed=_ONE_GROUP) for site in findings.contributors.get(step, ())}
    for site, found in findings.by_site.get(step, {}).items():
        low, high = _ends(found["auc_within_sites_ci95"])
        sites[site] = SiteDifference(
            n_group=found["n_group"],
            n_reference=found["n_reference"],
            unadjusted=_difference(found["unadjusted"]),
            auc=found["auc_within_sites"],
            auc_ci95_low=low,
            auc_ci95_high=high,
        )
    return dict(sorted(sites.items()))


def _ends(interval: Sequence[float] | None) -> tuple[float | None, float | None]:
    return (interval[0], interval[1]) if interval else (None, None)


def _difference(found: Mapping[str, Any]) -> Difference | None:
    if found["difference_years"] is None:
        return None
    low, high = found["ci95"] or (None, None)
    kept = ("difference_years", "se_years", "t", "df", "p", "cohens_d", "residual_sd_years")
    return Difference(**{key: found[key] for key in kept}, ci95_low=low, ci95_high=high)
