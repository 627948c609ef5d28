"""The model card of a bundle, and the limits that whoever predicts with it is told, from its description alone."""

from __future__ import annotations

from collections.abc import Iterator

from fedage.common.bundle.description import OVERALL, Description, Errors, Line

NOT_A_DEVICE = (
    "This model is for research. It is no medical device: no decision on a patient may rest on what it predicts."
)

_NOT_PRIVATE = (
    "Weights follow from patients' data, and this model was trained without differential privacy: records or "
    "membership may be worked out from them."
)


def limits(description: Description) -> list[str]:
    """For whom and how well the model works as far as is known, in sentences."""
    return list(_limits(description))


def model_card(description: Description) -> str:
    """The card as Markdown; `description.card` is not read."""
    origin, trained = description.origin, description.trained_on
    lines = [
        f"# Model card: {description.estimator} of campaign {origin.campaign}",
        "",
        NOT_A_DEVICE,
        "",
        "## Purpose and origin",
        "",
        f"- Purpose of the campaign: {origin.purpose}",
        f"- Campaign file SHA-256 {origin.digest}, run {origin.run}, {origin.environment}, FedAge "
        f"{description.fedage_version}" + (f", ended {origin.finished_utc}" if origin.finished_utc else ""),
        *([f"- {sentence}" for sentence in _of_the_run(description)]),
        "",
        "## Data and limits",
        "",
        *(f"- {sentence}" for sentence in _limits(description)),
        "",
        "| site | patients | judged on | MAE, years | bias line |",
        "|---|---|---|---|---|",
        *(_row(name, description) for name in sorted({*trained.sites, *description.errors_by_site})),
        _table_row("all sites", "", description.errors, description.overall_line),
        "",
        "## Inputs and preprocessing",
        "",
        *(f"- {sentence}" for sentence in _inputs(description)),
        "",
        "## What the bundle reveals",
        "",
        f"- {description.privacy or _NOT_PRIVATE}",
        "- The table above tells of each site what its campaign told the coordinator. Give the bundle only to those "
        "who may have that.",
    ]
    return "\n".join(lines) + "\n"


def _of_the_run(description: Description) -> Iterator[str]:
    origin = description.origin
    if origin.phantoms:
        yield "The patients are phantoms rendered by FedAge: the model says nothing about people."
    if not origin.guard:
        yield "Disclosure control was switched off in this run: the model may rest on single patients."
    if origin.folds:
        yield (
            f"Errors and bias lines are those of the {origin.folds} models of the folds, each on patients held out of "
            "it. The model itself was made on everybody and was judged on nobody."
        )


def _limits(description: Description) -> Iterator[str]:
    trained, errors = description.trained_on, description.errors
    healthy = "healthy " if trained.train_on == "healthy" else ""
    counts = [n for n in trained.sites.values() if n is not None]
    patients = f"{sum(counts)} {healthy}patients" if counts else f"{healthy}patients"
    few = "" if len(counts) == len(trained.sites) else " (some sites do not tell how many)"
    sites = "1 site" if len(trained.sites) == 1 else f"{len(trained.sites)} sites"
    yield f"Trained on {patients}{few} of {sites}: {', '.join(sorted(trained.sites)) or 'none named'}."
    low, high = trained.ages_seen_years or trained.age_limits_years
    of = "patients were seen" if trained.ages_seen_years else "the campaign took patients"
    if description.own_statistics:
        yield (
            "Each site normalises by means and variances of its own images, which are not in the bundle: predict many "
            "exams of one site together, never those of several sites. The errors below are those of the sites that "
            "trained, each with its own."
        )
    yield f"Ages: {of} from {low:g} to {high:g} years; beyond that the predictions are extrapolated."
    if errors is not None and errors.mae_years is not None:
        mean = (
            f", predicting the mean age for everybody by {errors.mae_of_mean_years:.2f}"
            if errors.mae_of_mean_years is not None
            else ""
        )
        yield (
            f"On {errors.n} patients who were not trained on, predicted ages were off by {errors.mae_years:.2f} years "
            f"on average{mean}. At another hospital the error is usually larger: validate it there first."
        )
    else:
        yield "How far its predictions are off is not known: no site told it."
    if description.overall_line is None and not description.lines:
        yield "It has no bias line, so no gap can be corrected."
    yield NOT_A_DEVICE


def _inputs(description: Description) -> Iterator[str]:
    if description.row:
        scale = (
            f"log(age {description.age_offset_years:+g} years)" if description.age_scale == "log" else "age in years"
        )
        yield f"A row of {len(description.row)} numbers, linear in {scale}; columns in order: " + ", ".join(
            f"`{column.removeprefix('feature:')}`" for column in description.row
        )
    for one in description.inputs:
        if one.rank > 1:
            kind = "volume" if one.rank == 3 else "image"
            modalities = f" ({', '.join(one.modalities)})" if one.modalities else ""
            yield f"`{one.name}`: a {kind}{modalities}{', may be missing' if one.optional else ''}"
    version = f"{description.estimator}, version {description.samples_version}"
    yield f"Preprocessing of {version}, with the options in the bundle."
    yield "Predicted columns: " + ", ".join(
        f"`{one.column}` ({one.lower:g} to {one.upper:g})" for one in description.outputs
    )


def _row(site: str, description: Description) -> str:
    n = description.trained_on.sites.get(site)
    patients = "not trained on" if site not in description.trained_on.sites else "few" if n is None else str(n)
    return _table_row(site, patients, description.errors_by_site.get(site), description.lines.get(site))


def _table_row(name: str, patients: str, errors: Errors | None, line: Line | None) -> str:
    judged = str(errors.n) if errors else "–"
    mae = f"{errors.mae_years:.2f}" if errors and errors.mae_years is not None else "–"
    fitted = f"{line.slope:.3f} · age {line.intercept_years:+.2f}" if line else "–"
    return f"| {name} | {patients} | {judged} | {mae} | {fitted} |"


def line_text(name: str, line: Line) -> str:
    """A bias line for whoever reads corrected gaps."""
    whose = "the bias line over all sites of the training" if name == OVERALL else f"the bias line of site {name}"
    formula = f"{line.slope:.3f} × age {line.intercept_years:+.2f} years"
    return f"corrected by {whose}: {formula}, fitted on {line.n} patients"
