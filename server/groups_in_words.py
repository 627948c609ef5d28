"""The comparison of two groups in a sentence, for the report's first screen and the end of a run."""

from __future__ import annotations

from fedage.server.results import Groups, Results


def sentences(results: Results) -> list[str]:
    """What the comparison says, for the first screen; nothing if it was not asked for."""
    groups = results.groups
    if groups is None:
        return []
    found = groups.corrected
    named = f"{groups.column} = {groups.equals:g}", f"{groups.column} = {groups.reference:g}"
    chosen = found.adjusted or found.unadjusted
    if chosen is None or chosen.difference_years is None:
        why = (found.not_computed or "no site released it").rstrip(".")
        return [f"How the gap differs between {named[0]} and {named[1]} is not known: {why}."]
    held = ", ".join(["site", *(groups.covariates if found.adjusted else ())]).replace("_years", "")
    kind = "raw" if found.gap.startswith("raw") else "corrected"
    size = f"{abs(chosen.difference_years):.2f} years {'larger' if chosen.difference_years >= 0 else 'smaller'}"
    said = f"With {held} held fixed, the {kind} gap of patients with {named[0]} is {size} than with {named[1]}"
    if chosen.ci95_low is None or chosen.ci95_high is None:
        return [f"{said}.{_not_adjusted(groups)}"]
    open_ = chosen.ci95_low <= 0 <= chosen.ci95_high
    shown = f"{' The interval includes 0: no difference is shown.' if open_ else ''}{_not_adjusted(groups)}"
    auc = ""
    if found.auc_within_sites is not None:
        auc = f"; ROC AUC within sites {found.auc_within_sites:.3f}"
        if found.auc_within_sites_ci95_low is not None and found.auc_within_sites_ci95_high is not None:
            auc += f", {found.auc_within_sites_ci95_low:.3f} to {found.auc_within_sites_ci95_high:.3f}"
    return [f"{said} (95 % interval of the difference {chosen.ci95_low:.2f} to {chosen.ci95_high:.2f}{auc}).{shown}"]


def _not_adjusted(groups: Groups) -> str:
    """What the file asked to hold fixed and is not, e.g. ` It is not adjusted for age, is_male: …`."""
    if not groups.covariates or groups.corrected.adjusted is not None:
        return ""
    asked = ", ".join(groups.covariates).replace("_years", "")
    return f" It is not adjusted for {asked}: {(groups.corrected.not_adjusted or 'no result').rstrip('.')}."
