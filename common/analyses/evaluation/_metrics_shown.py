"""What evaluations of predicted ages show: sentences, and tables of each site's errors beside those of mean ages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fedage.common.analyses.evaluation import results as evaluation_results
from fedage.common.analyses.evaluation.errors_text import AT_LEAST, OWN_MEAN, POOLED_MEAN, loses_to, may_lose
from fedage.common.analyses.evaluation.errors_text import sentences as losses
from fedage.common.analyses.evaluation.results import CountsByAge, Evaluated, Metrics
from fedage.common.presentation.blocks import Block, Display, Folded, Paragraph, Section, TitledTable
from fedage.common.presentation.cells import NONE, POOLED, Cell, Table, at_least, count, number, share_between, words
from fedage.common.presentation.participation import (
    has_predicted_ages,
    hidden_note,
    is_pooled,
    judged,
    participants,
    patients_told,
    pooled_label,
    pooled_row,
    status,
)
from fedage.common.record.results import Results

TEST, VALIDATION, CORRECTED = "evaluation:test", "evaluation:validation", "evaluation:test-corrected"


def shown(results: Results) -> Display:
    """Everything, where there are predicted ages."""
    said = losses(results)
    if not has_predicted_ages(results):
        return Display(sentences=(*_errors(results), *said))
    evaluations = evaluation_results.evaluation(results)
    test, validation = evaluations.test, evaluations.validation
    whose, held = _capital(judged(results)), _capital(judged(results).replace("test", "validation"))
    raw = evaluation("test-raw", results, test.raw, step=TEST)
    corrected = evaluation("test-corrected", results, test.corrected, step=CORRECTED)
    held_out = evaluation("validation-raw", results, validation.raw, step=VALIDATION)
    blocks: list[Block] = [TitledTable(raw, f"{whose}, raw (the primary figures), in years")]
    if results.campaign.estimator:
        blocks += [
            TitledTable(corrected, f"{whose}, after bias correction, in years"),
            Paragraph(
                "A correction uses the true age, so it flatters any model. Judge and compare models by the raw figures."
            ),
        ]
        if not results.campaign.folds:
            table = TitledTable(held_out, f"{held}, raw, in years")
            blocks.append(Folded("Validation patients", (table,)))
    first = TitledTable(headline(results), f"Error of the predicted age on {judged(results)}, in years")
    there = raw.rows or corrected.rows or held_out.rows or results.of_type(CountsByAge)
    return Display(
        sentences=(*_errors(results), *said),
        references=tuple(_references(results)),
        terminal=(_terminal(results), *said),
        tells_sites=True,
        first=(first,) if there else (),
        sections=(Section("ages", "Predicted age", tuple(blocks), place=11, reasons_once=True),),
    )


def _errors(results: Results) -> list[str]:
    test = evaluation_results.evaluation(results).test
    folds = ", each predicted by the model made without their fold," if results.campaign.model_folds else ""
    if not results.campaign.estimator and test.raw.overall is None:
        return []
    if test.raw.overall is None or test.raw.overall.mae_years is None:
        return [f"How good the predicted ages are is not known: {_unknown(test.raw.not_computed)}."]
    raw = test.raw.overall
    whose = f"{raw.n} {judged(results)}{folds}"
    sentence = f"On {whose} the predicted age is off by {raw.mae_years:.2f} years on average (MAE, raw)"
    against = []
    if raw.mae_of_mean_years is not None:
        bound = "at least " if raw.mae_of_mean_at_least else ""
        against.append(f"predicting the mean age for everybody would be off by {bound}{raw.mae_of_mean_years:.2f}")
    if raw.mae_of_site_mean_years is not None:
        against.append(f"each site's own mean by {raw.mae_of_site_mean_years:.2f}")
    reference = results.reference("mae_years")
    if reference is not None and (value := reference.values.get("")) is not None:
        against.append(f"{reference.words} by {value:.2f}")
    said = [f"{sentence}{'; ' + ', '.join(against) if against else ''}."]
    corrected = test.corrected.overall
    if corrected is not None and corrected.mae_years is not None:
        said.append(
            f"After correction of the age bias it is {corrected.mae_years:.2f} years. The correction uses the true "
            "age, which flatters any model: compare models by the raw figure."
        )
    return said


def _references(results: Results) -> Iterator[tuple[float, str]]:
    """What a learning curve is held against: only of test patients the sites tell it; with folds they are the same."""
    test = evaluation_results.evaluation(results).test.raw.overall
    if test is not None and test.mae_of_mean_years is not None:
        bound = ", at least" if test.mae_of_mean_at_least else ""
        yield test.mae_of_mean_years, f"predicting the\nmean age{bound}"


def _unknown(reason: str) -> str:
    return (reason or "no site released it").rstrip(".")


def _terminal(results: Results) -> TitledTable:
    """Each site's patients, status and errors, for the end of a run."""
    test = evaluation_results.evaluation(results).test
    headers = ("site", "patients", "test", "MAE\nraw", "MAE\ncorrected", "mean\nof all", "own\nmean", "status")
    rows = [
        (
            Cell(site.name),
            _plain(patients_told(site)),
            _plain(str(raw.n) if raw else "-"),
            _plain(_mae(raw)),
            _plain(_mae(corrected)),
            *_means(raw),
            Cell(status(site)),
        )
        for site in results.sites
        for raw, corrected in [(test.raw.by_site.get(site.name), test.corrected.by_site.get(site.name))]
    ]
    overall, corrected = test.raw.overall, test.corrected.overall
    if overall is not None and is_pooled(results, TEST, by_site=list(test.raw.by_site)):
        label = pooled_label(results, TEST, by_site=list(test.raw.by_site)).removesuffix(" sites")
        figures = (_plain(str(overall.n)), _plain(_mae(overall)), _plain(_mae(corrected)), *_means(overall))
        rows.append((Cell(label, mark=POOLED), Cell(""), *figures, Cell("")))
    notes = ["* is less than the model's raw error"] if any(c.mark == "bad" for row in rows for c in row) else []
    if any(metrics.mae_of_mean_at_least for metrics in test.raw.by_site.values()):
        notes.append(AT_LEAST)
    healthy = "healthy " if results.campaign.train_on == "healthy" else ""
    caption = f"error of the predicted age of {healthy}test patients, years (MAE)"
    return TitledTable(Table("errors", headers, tuple(rows), note="\n".join(notes)), caption)


def _plain(text: str, mark: str = "") -> Cell:
    """A number as the terminal shows it."""
    return Cell(text, text, mark=mark)


def _mae(metrics: Metrics | None) -> str:
    return "-" if metrics is None or metrics.mae_years is None else f"{metrics.mae_years:.2f}"


def _means(metrics: Metrics | None) -> tuple[Cell, Cell]:
    """What predicting the mean age of all sites, and the site's own, would miss by; marked where that is better."""
    if metrics is None:
        return _plain("-"), _plain("-")
    lost = loses_to(metrics)
    return (
        _mean(metrics.mae_of_mean_years, better=POOLED_MEAN in lost, bound=metrics.mae_of_mean_at_least),
        _mean(metrics.mae_of_site_mean_years, better=OWN_MEAN in lost),
    )


def _mean(value: float | None, *, better: bool, bound: bool = False) -> Cell:
    if value is None:
        return _plain("-")
    text = f"{'≥' if bound else ''}{value:.2f}"
    return _plain(f"{text}*", mark="bad") if better else _plain(text)


_THE_MEAN = "the mean age"
"""What the mean of all sites is called where there is one."""


def headline(results: Results) -> Table:
    """The first screen's table: MAE of each site, raw first."""
    test, reference = evaluation_results.evaluation(results).test, results.reference("mae_years")
    pooled_mean = POOLED_MEAN if len(test.raw.by_site) > 1 else _THE_MEAN
    headers = ["site", "test patients", "MAE raw", "MAE corrected", pooled_mean, OWN_MEAN, "loses to"]
    if reference is not None:
        headers.append(reference.heading)
    rows = []
    for name in sorted(test.raw.by_site):
        raw, corrected = test.raw.by_site[name], test.corrected.by_site.get(name)
        row = _mae_row(name, raw, corrected)
        if reference is not None:
            row.append(number(reference.values.get(name)))
        rows.append(tuple(replace(cell, text=cell.text.replace(POOLED_MEAN, pooled_mean)) for cell in row))
    if test.raw.overall is not None and is_pooled(results, TEST, by_site=list(test.raw.by_site)):
        label = pooled_label(results, TEST, by_site=list(test.raw.by_site))
        row = _mae_row(label, test.raw.overall, test.corrected.overall, pooled=True)
        if reference is not None:
            row.append(number(reference.values.get("")))
        rows.append(tuple(row))
    note = (
        "The means are what predicting them for everybody would miss by (MAE). The model loses to one where its raw "
        "error is larger."
    )
    if any(metrics.mae_of_mean_at_least for metrics in test.raw.by_site.values()):
        note = f"{note} {AT_LEAST}"
    why = _why(test.raw, "No evaluation was released.")
    return Table("headline", tuple(headers), tuple(rows), why_empty=why, note=note if rows else "")


def _mae_row(name: str, raw: Metrics, corrected: Metrics | None, *, pooled: bool = False) -> list[Cell]:
    return [
        Cell(name, mark=POOLED if pooled else ""),
        count(raw.n),
        number(raw.mae_years),
        number(corrected.mae_years) if corrected is not None else NONE,
        at_least(raw.mae_of_mean_years, bound=raw.mae_of_mean_at_least),
        number(raw.mae_of_site_mean_years),
        _lost(raw),
    ]


def _lost(raw: Metrics) -> Cell:
    lost = loses_to(raw)
    if raw.mae_of_mean_years is None and raw.mae_of_site_mean_years is None:
        return NONE
    if may_lose(raw):
        return Cell(" and ".join([*lost, f"perhaps {POOLED_MEAN}"]), mark="bad" if lost else "")
    return Cell(" and ".join(lost), mark="bad") if lost else words("neither")


def evaluation(name: str, results: Results, evaluated: Evaluated, *, step: str) -> Table:
    """One evaluation by site and overall; `step` is its registered name."""
    headers = (
        "site",
        "patients",
        "MAE",
        "RMSE",
        "mean error",
        "|error| ≤ 5 years",
        "Pearson r",
        "calibration slope",
        "intercept, years",
        POOLED_MEAN,
        OWN_MEAN,
    )
    everyone = [(words(site), metrics) for site, metrics in sorted(evaluated.by_site.items())]
    if evaluated.overall is not None:
        everyone += pooled_row(results, step, list(evaluated.by_site), evaluated.overall)
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            site,
            count(metrics.n),
            number(metrics.mae_years),
            number(metrics.rmse_years),
            number(metrics.mean_error_years),
            share_between(metrics.cs_5, metrics.cs_5_low, metrics.cs_5_high),
            number(metrics.pearson_r, 3),
            number(metrics.calibration_slope, 3),
            number(metrics.calibration_intercept_years),
            at_least(metrics.mae_of_mean_years, bound=metrics.mae_of_mean_at_least),
            number(metrics.mae_of_site_mean_years),
        )
        for site, metrics in everyone
    )
    alone = len(evaluated.by_site) == 1 < len(participants(results))
    note = "Only one site released figures of its own." if alone else hidden_note(results)
    filled = [k for k in range(len(headers)) if headers[k] != POOLED_MEAN or any(row[k].value for row in rows)]
    kept = tuple(tuple(row[k] for k in filled) for row in rows)
    why = _why(evaluated, "No site released it.")
    one = {POOLED_MEAN: _THE_MEAN} if len(evaluated.by_site) == 1 else {}
    return Table(name, tuple(one.get(headers[k], headers[k]) for k in filled), kept, why_empty=why, note=note)


def _why(evaluated: Evaluated, otherwise: str) -> str:
    return evaluated.not_computed or otherwise


def _capital(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"
