"""What a reader must know before comparing: what the runs do not have in common, in sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from fedage.common.presentation.wording import listed
from fedage.server.compare.runs import Run


def notes_on(runs: Sequence[Run], of_analyses: Iterable[str] = ()) -> Iterator[str]:
    """Every such note, those of analyses among them; none if the runs differ in nothing that matters."""
    yield from _differ(runs, "campaign", lambda run: run.results.campaign.name, "the runs answer different questions")
    yield from _differ(runs, "estimator", lambda run: run.results.campaign.estimator or "none", "")
    yield from _folds(runs)
    yield from _differ(
        runs,
        "patients judged",
        lambda run: "healthy ones" if run.results.campaign.train_on == "healthy" else "all",
        "errors are of different patients",
    )
    yield from _truth(runs)
    yield from of_analyses
    yield from _differ(
        runs,
        "minimum count",
        lambda run: str(run.results.campaign.minimum_count),
        "different sites or cells may be withheld",
    )
    yield from _differ(
        runs, "FedAge version", lambda run: run.results.fedage_version, "the code itself may have changed"
    )


def _differ(runs: Sequence[Run], what: str, of: Callable[[Run], str], why: str) -> Iterator[str]:
    by_value: dict[str, list[str]] = {}
    for run in runs:
        by_value.setdefault(of(run), []).append(run.label)
    if len(by_value) > 1:
        differences = "; ".join(f"{value} ({listed(labels)})" for value, labels in by_value.items())
        yield f"Not the same {what}: {differences}{f'. So {why}' if why else ''}."


def _split(run: Run) -> str:
    campaign = run.results.campaign
    return f"{campaign.folds} folds" if campaign.folds else "none" if campaign.estimator else "nothing is trained"


def _folds(runs: Sequence[Run]) -> Iterator[str]:
    """With folds each patient counts as a test patient; that they are made with many models is said even if all are."""
    yield from _differ(
        runs,
        "folds",
        _split,
        "the errors are of every patient where there are folds or nothing is trained, else of the test part, and "
        "models of more folds are made from more patients",
    )
    folds = {run.results.campaign.folds for run in runs}
    if len(folds) == 1 and None not in folds:
        yield (
            f"All runs have {folds.pop()} folds: each patient is predicted by the model that was made without their "
            "fold, so an error is one of several models."
        )


def _truth(runs: Sequence[Run]) -> Iterator[str]:
    rendered = [run.label for run in runs if run.results.phantoms]
    real = [run.label for run in runs if not run.results.phantoms]
    if rendered and real:
        yield (f"Phantoms and patients are not comparable: {listed(rendered)} on phantoms, {listed(real)} on patients.")
