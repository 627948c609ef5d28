"""The comparison's tables: the terminal and the page show the same ones."""

from __future__ import annotations

from fedage.common.analyses.evaluation.errors_text import AT_LEAST, OWN_MEAN, POOLED_MEAN
from fedage.common.presentation.cells import (
    NONE,
    Cell,
    Table,
    at_least,
    count,
    number,
    share_between,
    words,
)
from fedage.common.presentation.wording import listed
from fedage.common.toml.words import show
from fedage.server.compare.comparison import ComparedRun, Comparison, SiteError

_SITES_AS_COLUMNS = 6
_OF_A_SITE = {OWN_MEAN: "the site's own mean"}


def headline(comparison: Comparison, *, with_columns: bool = True) -> Table:
    """One row a run: what it was, how good its ages are, and what analyses add in columns of their own."""
    columns = [column for each in comparison.shown for column in each.columns] if with_columns else []
    # Nothing that is trained in rounds: nothing to aggregate.
    strategies = any(run.strategy for run in comparison.runs)
    headers = [
        "run",
        "estimator",
        *(["strategy"] if strategies else []),
        "rounds",
        "seed",
        "test patients",
        "MAE raw",
        "MAE corrected",
    ]
    headers += ["MAE of the mean", "MAE of own means", "CS(≤5)", "r", *(header for header, _ in columns)]
    rows = tuple(
        (
            words(run.label),
            words(run.estimator or ""),
            *((words(run.strategy or ""),) if strategies else ()),
            _rounds(run),
            Cell(str(run.seed), str(run.seed)),
            NONE if run.n is None else count(run.n),
            number(run.mae_years_raw),
            number(run.mae_years_corrected),
            at_least(run.mae_of_mean_years, bound=run.mae_of_mean_at_least),
            number(run.mae_of_site_mean_years),
            share_between(run.cs_5, run.cs_5_low, run.cs_5_high),
            number(run.pearson_r, 3),
            *(cells.get(run.label, NONE) for _, cells in columns),
        )
        for run in comparison.runs
    )
    return Table("runs", tuple(headers), rows)


def by_site(comparison: Comparison) -> Table:
    """Raw MAE of each site; sites as columns if they are few, else as rows."""
    sites, runs = comparison.sites, comparison.runs
    if not sites:
        return Table("by-site", why_empty="no run has an error by site")
    if len(sites) <= _SITES_AS_COLUMNS:
        rows = [(words(run.label), *(_mae(run, site) for site in sites)) for run in runs]
        return Table("by-site", ("run", *sites), tuple(rows), note=_loss_note(comparison))
    columns = [(words(site), *(_mae(run, site) for run in runs)) for site in sites]
    headers = ("site", *(run.label for run in runs))
    return Table("by-site", headers, tuple(columns), note=_loss_note(comparison))


def means_by_site(comparison: Comparison) -> Table:
    """Each site of each run against the mean of all sites and its own, so that runs stand under each other."""
    rows = tuple(
        (
            words(site),
            words(run.label),
            count(found.n),
            number(found.mae_years_raw),
            number(found.mae_years_corrected),
            at_least(found.mae_of_mean_years, bound=found.mae_of_mean_at_least),
            number(found.mae_of_site_mean_years),
            _lost(found),
        )
        for site in comparison.sites
        for run in comparison.runs
        if (found := run.by_site.get(site)) is not None
    )
    headers = ("site", "run", "test patients", "MAE raw", "MAE corrected", POOLED_MEAN, OWN_MEAN, "loses to")
    bound = any(found.mae_of_mean_at_least for run in comparison.runs for found in run.by_site.values())
    note = AT_LEAST if bound else ""
    return Table("site-means", headers, rows, why_empty="no run has an error by site", note=note)


def losses(comparison: Comparison) -> list[str]:
    """A sentence a run: the sites at which it is worse than predicting a mean age."""
    said = []
    for run in comparison.runs:
        lost = {
            mean: [site for site, found in run.by_site.items() if mean in found.loses_to]
            for mean in (POOLED_MEAN, OWN_MEAN)
        }
        told = [f"to {_OF_A_SITE.get(mean, mean)} at {listed(sites)}" for mean, sites in lost.items() if sites]
        if told:
            said.append(f"{run.label} loses {' and '.join(told)}.")
        open_ = [site for site, found in run.by_site.items() if found.may_lose_to]
        if open_:
            said.append(f"Whether {run.label} loses to {POOLED_MEAN} at {listed(open_)} is not known.")
        elif not told and any(found.mae_of_mean_years is not None for found in run.by_site.values()):
            said.append(f"{run.label} loses to no mean at any of its {len(run.by_site)} sites.")
    return said


def settings(comparison: Comparison) -> Table:
    """What differs between the campaign files."""
    rows = tuple(
        (words(item.key), *(NONE if value is None else words(show(value)) for value in item.values))
        for item in comparison.settings
    )
    at_hand = [run for run in comparison.runs if "settings" not in run.missing]
    why = "the campaign files differ in nothing but what they are called"
    if len(at_hand) < 2:
        why = "fewer than two runs have their campaign.toml beside the record"
    return Table("settings", ("setting", *(run.label for run in comparison.runs)), rows, why_empty=why)


def repeats(comparison: Comparison) -> Table:
    """Runs over several seeds."""
    rows = tuple(
        (
            words(listed(item.labels)),
            words(", ".join(str(seed) for seed in item.seeds)),
            number(item.mae_years_raw_mean),
            number(item.mae_years_raw_sd),
            words(f"{item.mae_years_raw_lowest:.2f} to {item.mae_years_raw_highest:.2f}"),
        )
        for item in comparison.repeats
    )
    headers = ("runs", "seeds", "mean MAE raw", "SD over runs", "from lowest to highest")
    return Table("repeats", headers, rows, why_empty="no two runs differ in the seed alone")


def missing(comparison: Comparison) -> Table:
    """What a run does not have."""
    rows = tuple(
        (words(run.label), words(part), words(reason))
        for run in comparison.runs
        for part, reason in run.missing.items()
    )
    return Table("missing", ("run", "not there", "why"), rows, why_empty="every run has every part")


def banners(comparison: Comparison) -> list[str]:
    """What a reader must know before any number."""
    found = []
    rendered = [run.label for run in comparison.runs if run.phantoms]
    if rendered:
        whose = "all these runs" if len(rendered) == len(comparison.runs) else listed(rendered)
        found.append(
            f"Images in {whose} are phantoms rendered by FedAge. No figure from them says anything about patients."
        )
    unguarded = [run.label for run in comparison.runs if not run.guard]
    if unguarded:
        whose = "all these runs" if len(unguarded) == len(comparison.runs) else listed(unguarded)
        found.append(f"Disclosure control was switched off in {whose}: figures may rest on single patients.")
    ended = [f"{run.label} {run.status}" for run in comparison.runs if run.status != "finished"]
    if ended:
        found.append(f"Not every run finished ({', '.join(ended)}): what they show is what they had found until then.")
    return found


def _mae(run: ComparedRun, site: str) -> Cell:
    found = run.by_site.get(site)
    if found is None:
        return NONE
    cell = number(found.mae_years_raw)
    return Cell(f"{cell.text}*", cell.value, mark="bad") if found.loses_to else cell


def _lost(found: SiteError) -> Cell:
    told = [*found.loses_to, *(f"perhaps {mean}" for mean in found.may_lose_to)]
    if told:
        return Cell(" and ".join(told), mark="bad" if found.loses_to else "")
    return NONE if found.mae_of_mean_years is None and found.mae_of_site_mean_years is None else words("neither")


def _loss_note(comparison: Comparison) -> str:
    if not any(found.loses_to for run in comparison.runs for found in run.by_site.values()):
        return ""
    return f"* is worse than predicting a mean age. {' '.join(losses(comparison))}"


def _rounds(run: ComparedRun) -> Cell:
    folds = "" if run.folds is None else f" × {run.folds} folds"
    return Cell(f"exact{folds}") if run.exact else Cell(f"{run.rounds}{folds}", str(run.rounds))
