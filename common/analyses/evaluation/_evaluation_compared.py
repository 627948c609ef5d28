"""Errors of predicted ages of several runs side by side, and each site's beside those of predicting a mean age."""

from __future__ import annotations

import statistics
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from pydantic import Field

from fedage.common.analyses.evaluation._run_errors import Errors, Runs, SiteError, sites_of
from fedage.common.analyses.evaluation.errors_text import AT_LEAST, OWN_MEAN, POOLED_MEAN, loses_to, may_lose
from fedage.common.analyses.evaluation.results import evaluation
from fedage.common.presentation.blocks import (
    Column,
    Display,
    FigureBlock,
    Folded,
    NamedRun,
    Paragraph,
    Section,
    TitledTable,
)
from fedage.common.presentation.cells import NONE, Cell, Table, at_least, count, number, share_between, words
from fedage.common.presentation.wording import listed
from fedage.common.record.parts import Number, Part
from fedage.common.record.results import Results

_SITES_AS_COLUMNS = 6
_OF_A_SITE = {OWN_MEAN: "the site's own mean"}
_NO_SITE = "no run has an error by site"
_CAPTION = (
    "Raw mean absolute error on each site's test patients, a dot a run; all sites together on top. A grey tick is the "
    "error of predicting the mean age of all sites for everybody, a grey cross that of predicting the site's own mean, "
    "where they are not far beyond."
)


class Repeats(Part):
    """Runs that differ in nothing but the seed."""

    labels: tuple[str, ...] = Field(description="the runs")
    seeds: tuple[int, ...] = Field(description="their seeds")
    mae_years_raw_mean: Number = Field(description="mean of their raw MAEs")
    mae_years_raw_sd: Number = Field(description="standard deviation over the runs, n − 1 degrees of freedom")
    mae_years_raw_lowest: Number = Field(description="smallest")
    mae_years_raw_highest: Number = Field(description="largest")


def compared(runs: Sequence[NamedRun]) -> Display:
    """Everything; where no run has an error, that there is none."""
    errors: Runs = [(run.label, errors_of(run.results)) for run in runs]
    repeats = list(repeats_of(runs))
    over_seeds = _over_seeds(repeats)
    with_sites = tuple(label for label, run_errors in errors if run_errors.by_site)

    def draw() -> str | None:
        # Imported here: drawing takes a moment, and a terminal draws nothing.
        from fedage.common.analyses.evaluation._errors_by_site_figure import errors_by_site

        return errors_by_site(errors)

    section = Section(
        "sites",
        "Site by site",
        (
            FigureBlock(draw, _CAPTION, _NO_SITE, runs=with_sites),
            Folded(
                "Every site in numbers",
                (
                    TitledTable(by_site(errors), "MAE raw, in years"),
                    TitledTable(means_by_site(errors), "Against predicting a mean age, in years"),
                ),
            ),
        ),
        place=11,
    )
    corrected = "A correction uses the true age, so it flatters any model: compare by the raw figures."
    return Display(
        sentences=(*_summary(errors, repeats), *losses(errors)),
        terminal=(
            TitledTable(by_site(errors), "MAE raw by site, in years"),
            *((TitledTable(over_seeds, "over seeds"),) if over_seeds.rows else ()),
        ),
        headline=tuple(_columns(errors)),
        first=(
            Paragraph(corrected),
            *((TitledTable(over_seeds, "Runs that differ in the seed alone"),) if over_seeds.rows else ()),
        ),
        sections=(section,),
        notes=(*_other_sites(errors), *_other_patients(errors)),
        document={"repeats": tuple(repeats)},
    )


def figures(results: Results) -> dict[str, Any]:
    """Of one run, for the comparison as a document."""
    run_errors = errors_of(results)
    return {name: getattr(run_errors, name) for name in Errors.model_fields}


def missing(results: Results) -> dict[str, str]:
    """Why a run has no error on test patients, if it has none."""
    test = evaluation(results).test
    return {
        f"test error, {name}": each.not_computed or "no site released it"
        for name, each in (("raw", test.raw), ("corrected", test.corrected))
        if each.overall is None
    }


def errors_of(results: Results) -> Errors:
    """The errors of one run."""
    test = evaluation(results).test
    raw, corrected = test.raw.overall, test.corrected.overall
    overall = (
        {}
        if raw is None
        else {
            "n": raw.n,
            "mae_years_raw": raw.mae_years,
            "mae_of_mean_years": raw.mae_of_mean_years,
            "mae_of_mean_at_least": raw.mae_of_mean_at_least,
            "mae_of_site_mean_years": raw.mae_of_site_mean_years,
            "cs_5": raw.cs_5,
            "cs_5_low": raw.cs_5_low,
            "cs_5_high": raw.cs_5_high,
            "pearson_r": raw.pearson_r,
        }
    )
    return Errors.model_validate(
        {**overall, "mae_years_corrected": corrected.mae_years if corrected else None, "by_site": _by_site(results)}
    )


def _by_site(results: Results) -> dict[str, SiteError]:
    test = evaluation(results).test
    corrected = test.corrected.by_site
    return {
        site: SiteError(
            n=metrics.n,
            mae_years_raw=metrics.mae_years,
            mae_years_corrected=corrected[site].mae_years if site in corrected else None,
            mae_of_mean_years=metrics.mae_of_mean_years,
            mae_of_mean_at_least=metrics.mae_of_mean_at_least,
            mae_of_site_mean_years=metrics.mae_of_site_mean_years,
            may_lose_to=(POOLED_MEAN,) if may_lose(metrics) else (),
            loses_to=loses_to(metrics),
        )
        for site, metrics in sorted(test.raw.by_site.items())
    }


def repeats_of(runs: Sequence[NamedRun]) -> Iterable[Repeats]:
    """The runs that differ in nothing but the seed, where all of them have an error."""
    groups: dict[Hashable, list[NamedRun]] = {}
    for run in runs:
        if run.but_for_the_seed is not None and evaluation(run.results).test.raw.overall is not None:
            groups.setdefault(run.but_for_the_seed, []).append(run)
    for group in groups.values():
        known = [error for run in group if (error := errors_of(run.results).mae_years_raw) is not None]
        seeds = tuple(run.results.campaign.seed for run in group)
        if len(set(seeds)) < 2 or len(known) < len(group):
            continue
        yield Repeats(
            labels=tuple(run.label for run in group),
            seeds=seeds,
            mae_years_raw_mean=statistics.fmean(known),
            mae_years_raw_sd=statistics.stdev(known),
            mae_years_raw_lowest=min(known),
            mae_years_raw_highest=max(known),
        )


def _summary(errors: Runs, repeats: Sequence[Repeats]) -> list[str]:
    """What came out, in a sentence or two; only where runs are of the same patients is one called smaller."""
    known = sorted(
        (run_errors.mae_years_raw, label) for label, run_errors in errors if run_errors.mae_years_raw is not None
    )
    if not known:
        return ["No run has an error on test patients."]
    if len(known) == 1:
        return [f"Only {known[0][1]} has an error on test patients: {known[0][0]:.2f} years (MAE, raw)."]
    (least, best), (most, worst) = known[0], known[-1]
    over = [
        f"Over {len(item.seeds)} seeds, {listed(item.labels)} differ by a standard deviation of "
        f"{item.mae_years_raw_sd:.2f} years: a smaller difference between runs says nothing."
        for item in repeats
    ]
    return [
        f"The raw error (MAE) on test patients runs from {least:.2f} years ({best}) to {most:.2f} years ({worst}).",
        *(over or ["No two runs differ in the seed alone, so chance cannot be told from effect."]),
    ]


def losses(errors: Runs) -> list[str]:
    """A sentence a run: the sites at which it is worse than predicting a mean age."""
    said = []
    for label, run in errors:
        lost = {
            mean: [site for site, site_error in run.by_site.items() if mean in site_error.loses_to]
            for mean in (POOLED_MEAN, OWN_MEAN)
        }
        parts = [f"to {_OF_A_SITE.get(mean, mean)} at {listed(sites)}" for mean, sites in lost.items() if sites]
        if parts:
            said.append(f"{label} loses {' and '.join(parts)}.")
        open_ = [site for site, site_error in run.by_site.items() if site_error.may_lose_to]
        if open_:
            said.append(f"Whether {label} loses to {POOLED_MEAN} at {listed(open_)} is not known.")
        elif not parts and any(site_error.mae_of_mean_years is not None for site_error in run.by_site.values()):
            where = f"any of its {len(run.by_site)} sites" if len(run.by_site) > 1 else "its only site"
            said.append(f"{label} loses to no mean at {where}.")
    return said


def _columns(errors: Runs) -> Iterable[Column]:
    """Of the comparison's first table."""
    yield (
        "test patients",
        {label: NONE if run_errors.n is None else count(run_errors.n) for label, run_errors in errors},
    )
    yield "MAE raw", {label: number(run_errors.mae_years_raw) for label, run_errors in errors}
    yield "MAE corrected", {label: number(run_errors.mae_years_corrected) for label, run_errors in errors}
    yield (
        "MAE of the mean",
        {
            label: at_least(run_errors.mae_of_mean_years, bound=run_errors.mae_of_mean_at_least)
            for label, run_errors in errors
        },
    )
    yield "MAE of own means", {label: number(run_errors.mae_of_site_mean_years) for label, run_errors in errors}
    yield (
        "CS(≤5)",
        {
            label: share_between(run_errors.cs_5, run_errors.cs_5_low, run_errors.cs_5_high)
            for label, run_errors in errors
        },
    )
    yield "r", {label: number(run_errors.pearson_r, 3) for label, run_errors in errors}


def by_site(errors: Runs) -> Table:
    """Raw MAE of each site; sites as columns if they are few, else as rows."""
    sites = sites_of(errors)
    if not sites:
        return Table("by-site", why_empty=_NO_SITE)
    if len(sites) <= _SITES_AS_COLUMNS:
        rows = [(words(label), *(_mae(run_errors, site) for site in sites)) for label, run_errors in errors]
        return Table("by-site", ("run", *sites), tuple(rows), note=_loss_note(errors))
    columns = [(words(site), *(_mae(run_errors, site) for _, run_errors in errors)) for site in sites]
    return Table("by-site", ("site", *(label for label, _ in errors)), tuple(columns), note=_loss_note(errors))


def means_by_site(errors: Runs) -> Table:
    """Each site of each run against the mean of all sites and its own, so that runs stand under each other."""
    rows = tuple(
        (
            words(site),
            words(label),
            count(site_error.n),
            number(site_error.mae_years_raw),
            number(site_error.mae_years_corrected),
            at_least(site_error.mae_of_mean_years, bound=site_error.mae_of_mean_at_least),
            number(site_error.mae_of_site_mean_years),
            _lost(site_error),
        )
        for site in sites_of(errors)
        for label, run in errors
        if (site_error := run.by_site.get(site)) is not None
    )
    headers = ("site", "run", "test patients", "MAE raw", "MAE corrected", POOLED_MEAN, OWN_MEAN, "loses to")
    bound = any(site_error.mae_of_mean_at_least for _, run in errors for site_error in run.by_site.values())
    return Table("site-means", headers, rows, why_empty=_NO_SITE, note=AT_LEAST if bound else "")


def _over_seeds(repeats: Sequence[Repeats]) -> Table:
    rows = tuple(
        (
            words(listed(item.labels)),
            words(", ".join(str(seed) for seed in item.seeds)),
            number(item.mae_years_raw_mean),
            number(item.mae_years_raw_sd),
            words(f"{item.mae_years_raw_lowest:.2f} to {item.mae_years_raw_highest:.2f}"),
        )
        for item in repeats
    )
    return Table("repeats", ("runs", "seeds", "mean MAE raw", "SD over runs", "from lowest to highest"), rows)


def _mae(run: Errors, site: str) -> Cell:
    site_error = run.by_site.get(site)
    if site_error is None:
        return NONE
    cell = number(site_error.mae_years_raw)
    return Cell(f"{cell.text}*", cell.value, mark="bad") if site_error.loses_to else cell


def _lost(site_error: SiteError) -> Cell:
    means = [*site_error.loses_to, *(f"perhaps {mean}" for mean in site_error.may_lose_to)]
    if means:
        return Cell(" and ".join(means), mark="bad" if site_error.loses_to else "")
    return (
        NONE if site_error.mae_of_mean_years is None and site_error.mae_of_site_mean_years is None else words("neither")
    )


def _loss_note(errors: Runs) -> str:
    if not any(site_error.loses_to for _, run in errors for site_error in run.by_site.values()):
        return ""
    return f"* is worse than predicting a mean age. {' '.join(losses(errors))}"


def _other_sites(errors: Runs) -> Iterable[str]:
    """Sites that are not in all runs."""
    by_run = {label: set(run_errors.by_site) for label, run_errors in errors if run_errors.by_site}
    where: dict[tuple[str, ...], list[str]] = {}
    for site in sorted(set().union(*by_run.values())):
        where.setdefault(tuple(label for label in by_run if site in by_run[label]), []).append(site)
    partly = {labels: sites for labels, sites in where.items() if len(labels) < len(by_run)}
    if partly:
        differences = "; ".join(f"{listed(sites)} only in {listed(labels)}" for labels, sites in partly.items())
        yield f"Not the same sites: {differences}. So figures over all sites are of different patients."


def _other_patients(errors: Runs) -> Iterable[str]:
    """Other patients behind a site's figure, where the sites are the same."""
    counts: dict[str, dict[str, int]] = {}
    for label, run in errors:
        for site, site_error in run.by_site.items():
            counts.setdefault(site, {})[label] = site_error.n
    uneven = {site: by_run for site, by_run in sorted(counts.items()) if len(set(by_run.values())) > 1}
    if uneven:
        differences = "; ".join(
            f"{site} {', '.join(f'{n} ({label})' for label, n in by_run.items())}" for site, by_run in uneven.items()
        )
        yield f"Not the same number of test patients: {differences}."
