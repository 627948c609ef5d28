"""What stands over the report's tables and under its figures: of whom they are, and what is not in them."""

from __future__ import annotations

from typing import Any

from fedage.common.presentation.participation import analysed, judged
from fedage.server import sites_in_words
from fedage.server.report.figure_ages import cells_are_drawn, withheld_share
from fedage.server.results import Results


def captions(results: Results) -> dict[str, Any]:
    """Captions by what they belong to."""
    whose, everyone = judged(results), analysed(results)
    # The figures by age have no choice of the healthy, so with others among the patients they are of more people than
    # the tables.
    drawn = f"All {everyone}, healthy or not," if results.campaign.train_on == "healthy" else f"All {everyone}"
    return {
        "headline": f"Error of the predicted age on {whose}, in years",
        "learning": _learning(results),
        "ages": f"{drawn} by chronological age and raw predicted age. On the dashed line the prediction is right."
        f"{_means_by_age(results)}{_cells(results)}",
        "test_raw": f"{_capital(whose)}, raw (the primary figures), in years",
        "test_corrected": f"{_capital(whose)}, after bias correction, in years",
        "validation_raw": f"{_capital(whose.replace('test', 'validation'))}, raw, in years",
        "gaps": f"{drawn} by chronological age: mean of the gap (predicted minus chronological age) and one standard "
        "deviation in each bin, with the number of patients. A mean that falls with age is age bias."
        f"{_remaining_bias(results)}{_withheld_bins(results)}",
    }


def _learning(results: Results) -> str:
    folds = "in each fold (thin); bold is the mean over folds" if results.campaign.folds else "at each site"
    sites = {site for finished in results.rounds for site in finished.validation_mae_years_by_site}
    whose, mean = f"for the sites together (bold) and {folds}", "the sites' mean training loss"
    if len(sites) == 1 and not results.campaign.folds:
        whose, mean = f"at {next(iter(sites))}, the only site that tells it", "the training loss"
    return (
        "Mean absolute error of the averaged model after each round, on validation patients it was not trained on, "
        f"{whose}. Right: {mean}. {sites_in_words.curves(results)}{_estimated(results)}"
    )


def _estimated(results: Results) -> str:
    if not results.run.guard or results.campaign.minimum_count < 2:
        return ""
    return " Sites tell mean and standard deviation of a round's errors; its error is that of normal errors with these."


def _means_by_age(results: Results) -> str:
    gaps = results.figures.gap_by_age_raw
    if gaps is None or all(mean is None for mean in gaps.mean_years):
        return ""
    return (
        " A point is the mean predicted age of an age bin, drawn at the middle of the bin, and its bar one standard "
        "deviation of the predicted age difference."
    )


def _cells(results: Results) -> str:
    found = results.figures.predicted_by_age
    if found is None:
        return ""
    share = withheld_share(found)
    if cells_are_drawn(found):
        withheld = (
            f" {found.withheld} patients ({_percent(share)}) are not in the counts: their sites withhold small cells."
            if found.withheld
            else ""
        )
        return f" The number in a cell is how many patients it holds.{withheld}"
    return (
        f" Counts by cell are not drawn: {_percent(share)} of the patients are in small cells, which sites withhold. "
        "The rest would show another distribution than all patients have."
    )


def _remaining_bias(results: Results) -> str:
    """From where to where the mean gap runs after correction: a straight line from other patients leaves some bias."""
    found = results.figures.gap_by_age_corrected
    known = [] if found is None else [(k, mean) for k, mean in enumerate(found.mean_years) if mean is not None]
    if found is None or len(known) < 2:
        return ""
    (first, youngest), (last, oldest) = known[0], known[-1]
    fitted = results.bias.overall.n if results.bias.overall is not None else None
    on = f", which was fitted on {fitted} other patients," if fitted and not results.campaign.folds else ""
    lines = "the line" if results.bias.scope == "pooled" or len(results.bias.lines) == 1 else "the sites' lines"
    were = on if lines == "the line" else on.replace(" was ", " were ")
    edges = found.edges_years
    return (
        f" After correction the mean is {_signed(youngest)} years at {edges[first]:g} to {edges[first + 1]:g} years of "
        f"age and {_signed(oldest)} at {edges[last]:g} to {edges[last + 1]:g}: what differs from zero there is bias "
        f"that {lines}{were} did not take away, or chance in a small bin."
    )


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %")


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")


def _withheld_bins(results: Results) -> str:
    found = results.figures.gap_by_age_raw
    if found is None or not found.withheld:
        return ""
    return f" {found.withheld} patients in small bins (–) are withheld by their sites."


def _capital(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}"
