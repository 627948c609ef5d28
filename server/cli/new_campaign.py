"""`fedage campaign new`: a few questions, or flags, to a commented campaign file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fedage.common.errors import FedAgeError
from fedage.server.cli.questions import Questions, maybe, words

ANALYSIS_ONLY = "analysis-only"
SURVIVAL, GROUPS, STATISTICS = "survival", "groups", "statistics"
ANALYSES = (SURVIVAL, GROUPS, STATISTICS)
_PURPOSES = {
    SURVIVAL: "Relate what the sites' tables hold to follow-up, without training a model",
    GROUPS: "Compare two groups of patients by their age gap, without training a model",
    STATISTICS: "Report how far ages already predicted are from true ages, without training a model",
}


class CannotWrite(FedAgeError):
    """A new campaign file cannot be written, or not with these flags."""


def new(
    estimator: Annotated[str | None, typer.Option(help="a registered estimator")] = None,
    analysis_only: Annotated[
        bool, typer.Option("--analysis-only", help="train nothing: analyse what the sites' tables hold")
    ] = False,
    analyses: Annotated[
        str | None,
        typer.Option(help="train nothing and analyse: survival, groups, statistics, commas between"),
    ] = None,
    name: Annotated[str | None, typer.Option(help="short name, lower-case letters, digits and hyphens")] = None,
    purpose: Annotated[str | None, typer.Option(help="what is asked of the sites, in a sentence")] = None,
    seed: Annotated[int | None, typer.Option(help="drives initialisation and sampling")] = None,
    sites: Annotated[
        str | None, typer.Option(help="expected sites, with commas between; none: whoever is admitted")
    ] = None,
    age: Annotated[str | None, typer.Option(help="tables: column with the age in years")] = None,
    id_column: Annotated[str | None, typer.Option("--id", help="tables: column that tells patients apart")] = None,
    sex: Annotated[str | None, typer.Option(help="tables: column with the sex")] = None,
    features: Annotated[str | None, typer.Option(help="tables: columns or patterns, with commas between")] = None,
    predicted: Annotated[str | None, typer.Option(help="statistics: column with ages already predicted")] = None,
    time: Annotated[str | None, typer.Option(help="survival: column with the follow-up time in years")] = None,
    event: Annotated[str | None, typer.Option(help="survival: column with 1 = event, 0 = censored")] = None,
    covariates: Annotated[str | None, typer.Option(help="survival: columns of the Cox model, commas between")] = None,
    group_column: Annotated[str | None, typer.Option(help="groups: column that tells two groups apart")] = None,
    equals: Annotated[float | None, typer.Option(help="groups: its value for the group of interest")] = None,
    reference: Annotated[float | None, typer.Option(help="groups: its value for the reference group")] = None,
    held_fixed: Annotated[str | None, typer.Option(help="groups: columns held fixed, commas between")] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="validate the model in this bundle, which gives estimator, options and columns")
    ] = None,
    out: Annotated[Path, typer.Option(help="the file to write")] = Path("campaign.toml"),
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="ask nothing; take the default of what is not given")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="replace the file if it exists")] = False,
) -> None:
    """Write a commented campaign file: every key with its help and a sensible default."""
    from fedage.common.campaign_file import parse_campaign
    from fedage.common.campaign_file.new import Answers, campaign_text

    if out.exists() and not force:
        raise CannotWrite(f"{out} exists; give another file with --out, or --force to replace it")
    ask = Questions(asking=not yes and sys.stdin.isatty())
    validated = _of_bundle(bundle, estimator, analysis_only) if bundle is not None else {}
    estimator = validated.get("estimator", estimator)
    implied = next((flag for flag, value in (("--analyses", analyses), ("--predicted", predicted)) if value), None)
    kind = _kind(estimator, analysis_only, ask, implied=implied)
    follow_up = {"time": time, "event": event, "covariates": covariates}
    groups = {"group_column": group_column, "equals": equals, "reference": reference, "held_fixed": held_fixed}
    wanted = _analyses(kind, ask, analyses, follow_up=follow_up, groups=groups, predicted=predicted)
    usual = _purpose(kind, wanted, validates=bool(validated))
    about: dict[str, Any] = {
        "name": ask("campaign.name", "Name of the campaign", name, default=kind or ANALYSIS_ONLY),
        "purpose": ask(
            "campaign.purpose",
            "What is asked of the sites, in a sentence",
            purpose,
            default=usual,
        ),
        "seed": ask("campaign.seed", "Seed", seed, default=1, read=int),
        "sites": ask(
            "campaign.sites", "Sites, with commas between (none: whoever is admitted)", sites, default=(), read=words
        ),
        **(
            _columns_of_bundle(validated, age=age, id_column=id_column, sex=sex, features=features)
            if validated
            else _about_tables(kind, ask, wanted, age=age, id_column=id_column, sex=sex, features=features)
        ),
    }
    if kind is None:
        about |= _predicted(ask, wanted, predicted)
    if kind is not None and not wanted:
        follows = ask.whether("Relate the age gap to follow-up (survival analysis)?")
        compares = ask.whether("Compare two groups of patients by their age gap?")
        wanted = frozenset(name for name, yes in ((SURVIVAL, follows), (GROUPS, compares)) if yes)
    if SURVIVAL in wanted:
        about |= _follow_up(kind, ask, about, **follow_up)
    if GROUPS in wanted:
        about |= _groups(kind, ask, about, **groups)
    text = campaign_text(Answers(estimator=kind, survival=SURVIVAL in wanted, **about))
    campaign = parse_campaign(text, name=out.name)
    _write(out, text, force=force)
    typer.echo(f"{out}: ok, digest {campaign.digest}")
    typer.echo(f"Every key is explained in it. After an edit: fedage campaign check {out}")


def _of_bundle(bundle: Path, estimator: str | None, analysis_only: bool) -> dict[str, Any]:
    """Estimator, options and columns of a bundle."""
    from fedage.common.bundle.fits import estimator_of
    from fedage.deploy.machine.bundle_file import load_bundle

    if estimator is not None or analysis_only:
        raise CannotWrite("--bundle says which estimator it is; leave --estimator and --analysis-only out")
    _, read = load_bundle(bundle)
    estimator_of(read.description, name=str(bundle))
    description = read.description
    table = {key: value for key, value in (description.table or {}).items() if value is not None and value != []}
    return {"estimator": description.estimator, "bundle": read.digest, "options": description.options, "table": table}


def _columns_of_bundle(validated: dict[str, Any], **given: str | None) -> dict[str, Any]:
    """What the bundle says, with other columns of the sites' tables where a flag names one."""
    if given.pop("features") is not None:
        raise CannotWrite("--features: the bundle has its own; leave it out")
    table, on_tables = dict(validated["table"]), bool(validated["table"])
    for key, value in (("age", given["age"]), ("id", given["id_column"]), ("sex", given["sex"])):
        if value is not None and not on_tables:
            raise CannotWrite(
                f"--{key}: only for campaigns on tables, and this bundle's model takes images; leave it out"
            )
        if value is not None:
            table[key] = value
    return {"bundle": validated["bundle"], "options": validated["options"], "table": table, "age_column": None}


def _kind(estimator: str | None, analysis_only: bool, ask: Questions, *, implied: str | None) -> str | None:
    """The estimator's name, or None for a campaign that only analyses, as a flag may imply where none is named."""
    from fedage.common.estimators import names

    if estimator is not None and analysis_only:
        raise CannotWrite(f"--estimator {estimator} and --analysis-only exclude each other; give one of them")
    if analysis_only or (implied is not None and estimator is None):
        return None
    kinds = (*names(), ANALYSIS_ONLY)
    if estimator is None and not ask.asking:
        raise CannotWrite(f"which estimator is not known; give --estimator {' | '.join(names())}, or --analysis-only")
    if estimator is None:

        def checked(text: str) -> str:
            if text not in kinds:
                raise typer.BadParameter(f"{text!r} is none of {', '.join(kinds)}")
            return text

        estimator = typer.prompt(f"Estimator ({', '.join(kinds)})", value_proc=checked)
    if estimator not in kinds:
        raise CannotWrite(f"--estimator {estimator} is not registered; allowed are {', '.join(names())}")
    return None if estimator == ANALYSIS_ONLY else estimator


def _analyses(
    kind: str | None,
    ask: Questions,
    given: str | None,
    *,
    follow_up: dict[str, Any],
    groups: dict[str, Any],
    predicted: str | None,
) -> frozenset[str]:
    """What is to be analysed, as far as the flags say, or for a campaign that only analyses somebody who is asked."""
    implied = {SURVIVAL: follow_up.values(), GROUPS: groups.values(), STATISTICS: (predicted,)}
    flags = {name for name, values in implied.items() if any(value is not None for value in values)}
    if kind is not None:
        if given is not None or predicted is not None:
            option = "--analyses" if given is not None else "--predicted"
            raise CannotWrite(f"{option}: only with --analysis-only, and {kind} predicts; leave it out")
        return frozenset(flags)
    if given is None and flags:
        return frozenset(flags)
    try:
        chosen = ask("analyses", f"Analyses ({', '.join(ANALYSES)})", given, default=(SURVIVAL,), read=_read_analyses)
    except ValueError as error:
        raise CannotWrite(f"--analyses {given}: {error}") from None
    return frozenset(chosen) | flags


def _read_analyses(text: str) -> tuple[str, ...]:
    chosen = words(text)
    if unknown := [name for name in chosen if name not in ANALYSES]:
        raise ValueError(f"{unknown[0]!r} is none of {', '.join(ANALYSES)}")
    if not chosen:
        raise ValueError(f"give at least one of {', '.join(ANALYSES)}")
    return chosen


def _purpose(kind: str | None, wanted: frozenset[str], *, validates: bool) -> str:
    if kind is not None and validates:
        return f"Validate a model of {kind} that was made elsewhere at sites that had no part in it"
    if kind is not None:
        return f"Learn together to estimate age with {kind}, correct the age bias and report how good it is"
    if len(wanted) == 1:
        return _PURPOSES[next(iter(wanted))]
    named = " and ".join(name for name in ANALYSES if name in wanted)
    return f"Analyse what the sites' tables hold ({named}), without training a model"


def _about_tables(kind: str | None, ask: Questions, wanted: frozenset[str], **given: str | None) -> dict[str, Any]:
    """What is asked of a campaign on tables; a flag for one on images is refused."""
    from fedage.common.campaign_file.new import reads_tables

    if not reads_tables(kind):
        if flags := [flag for flag, value in given.items() if value is not None]:
            options = ", ".join(f"--{flag.removesuffix('_column')}" for flag in flags)
            raise CannotWrite(f"{options}: only for campaigns on tables, and {kind} reads images; leave it out")
        return {}
    if kind is None and given["features"] is not None:
        raise CannotWrite("--features: only for an estimator, and this campaign trains nothing; leave it out")
    needed = kind is not None or STATISTICS in wanted
    question = f"Column with the age in years{'' if needed else ' (-: not known)'}"
    answers: dict[str, Any] = {
        "age_column": ask("table.age", question, given["age"], default="age", read=str if needed else maybe),
        "id_column": ask(
            "table.id",
            "Column that tells patients apart (none: every row is one)",
            given["id_column"],
            default=None,
            read=maybe,
        ),
        "sex_column": ask("table.sex", "Column with the sex (none: not known)", given["sex"], default=None, read=maybe),
    }
    if kind is not None:
        question = 'Features, columns or patterns with commas between ("*": every numeric column)'
        answers["features"] = ask("features", question, given["features"], default=("*",), read=words)
    return answers


def _predicted(ask: Questions, wanted: frozenset[str], given: str | None) -> dict[str, Any]:
    """The column of ages already predicted, where an analysis needs one or can do with it."""
    if STATISTICS in wanted:
        return {
            "predicted_column": ask("table.predicted", "Column with predicted ages", given, default="predicted_age")
        }
    if GROUPS in wanted:
        question = "Column with predicted ages (none: the gap is in a column gap_years)"
        return {"predicted_column": ask("table.predicted", question, given, default=None, read=maybe)}
    return {}


def _follow_up(kind: str | None, ask: Questions, about: dict[str, Any], **given: str | None) -> dict[str, Any]:
    from fedage.common.campaign_file.new import usual_covariates

    usual = usual_covariates(kind, age=about.get("age_column"), predicted=about.get("predicted_column"))
    return {
        "time_column": ask(
            "survival.time", "Column with the follow-up time in years", given["time"], default="time_years"
        ),
        "event_column": ask("survival.event", "Column with 1 = event, 0 = censored", given["event"], default="event"),
        "covariates": ask("covariates", "Covariates of the Cox model", given["covariates"], default=usual, read=words),
    }


def _groups(kind: str | None, ask: Questions, about: dict[str, Any], **given: Any) -> dict[str, Any]:
    usual = ("age_years",) if kind is not None or about.get("age_column") else ()
    question = "Columns held fixed beside the site, with commas between"
    return {
        "group_column": ask(
            "groups.column", "Column that tells two groups apart", given["group_column"], default="diagnosis"
        ),
        "group_equals": ask(
            "groups.equals", "Its value for the group of interest", given["equals"], default=1.0, read=float
        ),
        "group_reference": ask(
            "groups.reference", "Its value for the reference group", given["reference"], default=0.0, read=float
        ),
        "held_fixed": ask("held", question, given["held_fixed"], default=usual, read=words),
    }


def _write(out: Path, text: str, *, force: bool) -> None:
    try:
        with out.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise CannotWrite(f"{out} cannot be written ({error.strerror}); give another file with --out") from None
