"""Records of schema version 1 as version 2, which has every result of an analysis at its step.

Version 1 had parts for evaluation, bias line, figures, survival and groups, and the sites of each step beside them.
What it says stays what it is; sites of a step that it does not tell stay unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

PARTS = ("evaluation", "bias", "figures", "survival", "groups", "planted", "contributors")
_FIGURES = {
    "predicted_by_age": ("predicted-by-age", "predicted-by-age"),
    "gap_by_age_raw": ("gap-by-age:raw", "gap-by-age"),
    "gap_by_age_corrected": ("gap-by-age:corrected", "gap-by-age"),
    "error_curve_raw": ("error-curve:test", "error-curve"),
    "error_curve_corrected": ("error-curve:test-corrected", "error-curve"),
}
_EVALUATIONS = {
    ("test", "raw"): "evaluation:test",
    ("test", "corrected"): "evaluation:test-corrected",
    ("validation", "raw"): "evaluation:validation",
}

Values = Mapping[str, Any]


def upgraded(values: Values) -> dict[str, Any]:
    """The values of a record of version 1 as those of version 2; its notes and everything of the run as they are."""
    kept = {key: value for key, value in values.items() if key not in PARTS}
    sites = values.get("contributors") or {}
    steps = {
        step: {"sites": sites.get(step, ()), **values_of_step}
        for step, values_of_step in [*_evaluation(values), *_figures(values), *_survival(values), *_groups(values)]
    }
    truth = (
        {"planted-truth": {"analysis": "planted-truth", "result": truth}} if (truth := values.get("planted")) else {}
    )
    return {**kept, "schema_version": 2, "analyses": {**steps, **truth, **(values.get("analyses") or {})}}


def _evaluation(values: Values) -> Iterator[tuple[str, dict[str, Any]]]:
    evaluation, predicts = values.get("evaluation") or {}, bool(_of(values, "campaign").get("estimator"))
    for (part, kind), step in _EVALUATIONS.items():
        part_values = (evaluation.get(part) or {}).get(kind) or {}
        if part_values.get("overall") or part_values.get("by_site") or (predicts and part_values.get("not_computed")):
            yield step, _step("evaluation", part_values.get("overall"), part_values)
    bias = values.get("bias") or {}
    if bias.get("overall") or bias.get("lines") or predicts:
        about = {key: bias[key] for key in ("method", "scope", "scale") if key in bias}
        yield "bias", {**_step("bias", bias.get("overall"), bias, about), "by_site": bias.get("lines") or {}}


def _figures(values: Values) -> Iterator[tuple[str, dict[str, Any]]]:
    figures, predicts = values.get("figures") or {}, bool(_of(values, "campaign").get("estimator"))
    missing = figures.get("not_computed") or {}
    for key, (step, analysis) in _FIGURES.items():
        if figures.get(key) or (predicts and key in missing):
            yield step, _step(analysis, figures.get(key), {"not_computed": missing.get(key, "")})


def _survival(values: Values) -> Iterator[tuple[str, dict[str, Any]]]:
    survival = values.get("survival")
    if survival is None:
        return
    for model in survival.get("cox") or ():
        about = {key: model[key] for key in ("model", "stratified_by_site", "ties") if key in model}
        yield f"cox:{model['model']}", _told_with_sites("cox", model, about, there=bool(model.get("covariates")))
    curves = survival.get("kaplan_meier")
    if not curves and not survival.get("cox"):
        curves = {"not_computed": "no table by time was computed"}
    if curves:
        costs = curves.get("held_back") or ()
        if costs:
            yield "table-grid", {"analysis": "table-grid", "costs": costs}
        rest = {key: value for key, value in curves.items() if key != "held_back"}
        about = {"column": curves.get("column")}
        yield "kaplan-meier", _told_with_sites("kaplan-meier", rest, about, there=not curves.get("not_computed"))


def _told_with_sites(analysis: str, part: Values, about: dict[str, Any], *, there: bool) -> dict[str, Any]:
    """A step whose part of the record named its sites; those win over the list beside."""
    result = {key: value for key, value in part.items() if key not in ("sites", "not_computed")}
    sites = {"sites": part["sites"]} if part.get("sites") else {}
    return {**_step(analysis, result if there else None, part, about), **sites}


def _groups(values: Values) -> Iterator[tuple[str, dict[str, Any]]]:
    groups = values.get("groups")
    if not groups:
        return
    about = {key: groups[key] for key in ("column", "equals", "reference", "covariates") if key in groups}
    for key, step in (("corrected", "groups:gap"), ("raw", "groups:raw-gap")):
        comparison = groups.get(key)
        if comparison is None:
            continue
        result = {name: value for name, value in comparison.items() if name not in ("by_site", "not_computed")}
        own = {site: _own_difference(own_values) for site, own_values in (comparison.get("by_site") or {}).items()}
        there = bool(comparison.get("unadjusted") or comparison.get("adjusted"))
        yield step, {**_step("groups", {**result, **about} if there else None, comparison, about), "by_site": own}


def _own_difference(values: Values) -> dict[str, Any]:
    """A site's own comparison, whose AUC is of its own pairs."""
    renamed = {f"auc{end}": f"auc_within_sites{end}" for end in ("", "_ci95_low", "_ci95_high")}
    return {renamed.get(key, key): value for key, value in values.items()}


def _step(analysis: str, result: Values | None, part: Values, about: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "analysis": analysis,
        "about": about or {},
        "result": result,
        "by_site": part.get("by_site") or {},
        "not_computed": "" if result else part.get("not_computed") or "",
    }


def _of(values: Values, key: str) -> Values:
    part = values.get(key)
    return part if isinstance(part, Mapping) else {"estimator": getattr(part, "estimator", "")}
