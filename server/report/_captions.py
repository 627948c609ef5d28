"""What stands over the report's tables and under its figures: of whom they are, and what is not in them."""

from __future__ import annotations

from typing import Any

from fedage.server.record.results import Results
from fedage.server.report import site_text


def captions(results: Results) -> dict[str, Any]:
    """Captions by what they belong to."""
    return {
        "learning": _learning(results),
    }


def _learning(results: Results) -> str:
    folds = "in each fold (thin); bold is the mean over folds" if results.campaign.model_folds else "at each site"
    sites = {site for finished in results.rounds for site in finished.validation_mae_years_by_site}
    whose, mean = f"for the sites together (bold) and {folds}", "the sites' mean training loss"
    if len(sites) == 1 and not results.campaign.model_folds:
        whose, mean = f"at {next(iter(sites))}, the only site that tells it", "the training loss"
    if any(finished.epsilon_by_site for finished in results.rounds):
        mean = "ε that the updates have cost until then, at the site where it is largest; no training loss is told"
    return (
        "Mean absolute error of the averaged model after each round, on validation patients it was not trained on, "
        f"{whose}. Right: {mean}. {site_text.curves(results)}{_estimated(results)}"
    )


def _estimated(results: Results) -> str:
    if not results.run.guard or results.campaign.minimum_count < 2:
        return ""
    if any(finished.epsilon_by_site for finished in results.rounds):
        told = any(finished.validation_mae_years is not None for finished in results.rounds[:-1])
        return " The errors have noise of differential privacy." if told else ""
    return " Sites tell mean and standard deviation of a round's errors; its error is that of normal errors with these."
