"""At which sites a model is worse than predicting a mean age, for the report's first screen and the end of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fedage.common.analyses.evaluation import results as evaluation_results
from fedage.common.analyses.evaluation.results import Metrics
from fedage.common.presentation.wording import listed
from fedage.common.record.results import Results

OWN_MEAN, POOLED_MEAN = "its own mean", "the mean of all sites"
AT_LEAST = (
    "≥: at least so much. It is more if a site has patients on either side of that mean and fewer than the minimum "
    "count on one, which it does not tell."
)


def loses_to(metrics: Metrics | None) -> tuple[str, ...]:
    """The means that certainly do better than the predicted ages, of a site or of all together."""
    if metrics is None or metrics.mae_years is None:
        return ()
    means = {OWN_MEAN: metrics.mae_of_site_mean_years}
    if not metrics.mae_of_mean_at_least:
        means[POOLED_MEAN] = metrics.mae_of_mean_years
    return tuple(name for name, mean in means.items() if mean is not None and metrics.mae_years > mean)


def may_lose(metrics: Metrics | None) -> bool:
    """Whether the mean of all sites may do better: its error is a lower bound, and the model's is above that."""
    return (
        metrics is not None
        and metrics.mae_of_mean_at_least
        and metrics.mae_years is not None
        and metrics.mae_of_mean_years is not None
        and metrics.mae_years > metrics.mae_of_mean_years
    )


def sentences(results: Results) -> list[str]:
    """Where the raw predicted ages lose to the mean of all sites and to the sites' own; nothing without sites."""
    by_site = evaluation_results.evaluation(results).test.raw.by_site
    open_ = {site: metrics for site, metrics in by_site.items() if may_lose(metrics)}
    decided = {site: metrics for site, metrics in by_site.items() if site not in open_}
    said = [
        *_against(
            decided,
            lambda metrics: metrics.mae_of_mean_years,
            f"the mean age{' of all sites' if len(by_site) > 1 else ''}",
        ),
        *_not_known(open_),
        *_against(by_site, lambda metrics: metrics.mae_of_site_mean_years, "the site's own mean age"),
    ]
    if any(metrics.mae_of_site_mean_years is not None for metrics in by_site.values()):
        said.append("A site's own mean is that of the very patients it is judged on: no model can know it beforehand.")
    return [" ".join(said)] if said else []


def _not_known(by_site: Mapping[str, Metrics]) -> list[str]:
    sites = [
        f"{site} ({metrics.mae_years:.2f} against at least {metrics.mae_of_mean_years:.2f} years)"
        for site, metrics in sorted(by_site.items())
    ]
    return [f"Whether it loses to the mean age of all sites at {listed(sites)} is not known."] if sites else []


def _against(by_site: Mapping[str, Metrics], mean: Callable[[Metrics], float | None], what: str) -> list[str]:
    known = [
        (site, metrics.mae_years, other)
        for site, metrics in sorted(by_site.items())
        if metrics.mae_years is not None and (other := mean(metrics)) is not None
    ]
    if not known:
        return []
    lost = [f"{site} ({mae:.2f} against {other:.2f} years)" for site, mae, other in known if mae > other]
    rest = len(known) - len(lost)
    if not lost:
        sites = f"every one of {rest} sites" if rest > 1 else known[0][0]
        return [f"The model loses to {what} nowhere: it is at least as good at {sites}."]
    others = f", not at the other {rest if rest > 1 else 'one'}" if rest else ", which is everywhere"
    return [f"The model loses to {what} at {listed(lost)}{others}."]
