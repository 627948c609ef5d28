"""`fedage campaign new`: a few questions, or flags, to a commented campaign file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from fedage.common.errors import FedAgeError

ANALYSIS_ONLY = "analysis-only"


class CannotWrite(FedAgeError):
    """A new campaign file cannot be written, or not with these flags."""


def new(
    estimator: Annotated[str | None, typer.Option(help="a registered estimator")] = None,
    analysis_only: Annotated[
        bool, typer.Option("--analysis-only", help="train nothing: survival analysis of the sites' tables")
    ] = False,
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
    time: Annotated[str | None, typer.Option(help="survival: column with the follow-up time in years")] = None,
    event: Annotated[str | None, typer.Option(help="survival: column with 1 = event, 0 = censored")] = None,
    covariates: Annotated[str | None, typer.Option(help="survival: columns of the Cox model, commas between")] = None,
    out: Annotated[Path, typer.Option(help="the file to write")] = Path("campaign.toml"),
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="ask nothing; take the default of what is not given")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="replace the file if it exists")] = False,
) -> None:
    """Write a commented campaign file: every key with its help and a sensible default."""
    from fedage.common.campaign import parse_campaign
    from fedage.common.campaign.new import Answers, campaign_text

    if out.exists() and not force:
        raise CannotWrite(f"{out} exists; give another file with --out, or --force to replace it")
    ask = _Questions(asking=not yes and sys.stdin.isatty())
    kind = _kind(estimator, analysis_only, ask)
    title = kind or ANALYSIS_ONLY
    answers = Answers(
        estimator=kind,
        name=ask("campaign.name", "Name of the campaign", name, default=title),
        purpose=ask("campaign.purpose", "What is asked of the sites, in a sentence", purpose, default=_purpose(kind)),
        seed=ask("campaign.seed", "Seed", seed, default=1, read=int),
        sites=ask(
            "campaign.sites", "Sites, with commas between (none: whoever is admitted)", sites, default=(), read=_list
        ),
        **_about_tables(kind, ask, age=age, id_column=id_column, sex=sex, features=features),
        **_follow_up(kind, ask, time=time, event=event, covariates=covariates),
    )
    text = campaign_text(answers)
    campaign = parse_campaign(text, name=out.name)
    _write(out, text, force=force)
    typer.echo(f"{out}: ok, digest {campaign.digest}")
    typer.echo(f"Every key is explained in it. After an edit: fedage campaign check {out}")


class _Questions:
    """Flags first, then a question if there is a terminal, else the default."""

    def __init__(self, *, asking: bool) -> None:
        self.asking = asking

    def __call__(self, key: str, question: str, given: Any, *, default: Any, read: Callable[[str], Any] = str) -> Any:
        if given is not None:
            return read(given)
        if not self.asking:
            return default

        def checked(text: str) -> Any:
            try:
                value = read(text)
            except ValueError:
                raise typer.BadParameter(f"{text!r} is not a whole number") from None
            if problem := _problem(key, value):
                raise typer.BadParameter(problem)
            return value

        shown = ",".join(default) if isinstance(default, tuple) else str(default or "")
        return typer.prompt(question, default=shown, value_proc=checked)


def _problem(key: str, value: Any) -> str:
    """What is wrong with one answer; empty if nothing, or if the file as a whole has to be seen to know."""
    from fedage.common.campaign._tables import check_table
    from fedage.common.campaign.parse import TABLES

    table, _, field = key.partition(".")
    if value in (None, "", ()) or table not in TABLES:
        return ""
    problems = check_table(table, {field: value}, TABLES[table]).problems
    return next((problem.message for problem in problems if problem.key.startswith(key)), "")


def _kind(estimator: str | None, analysis_only: bool, ask: _Questions) -> str | None:
    """The estimator's name, or None for a campaign that only analyses."""
    from fedage.common.estimators import names

    if estimator is not None and analysis_only:
        raise CannotWrite(f"--estimator {estimator} and --analysis-only exclude each other; give one of them")
    if analysis_only:
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


def _purpose(kind: str | None) -> str:
    if kind is None:
        return "Relate what the sites' tables hold to follow-up, without training a model"
    return f"Learn together to estimate age with {kind}, correct the age bias and report how good it is"


def _about_tables(kind: str | None, ask: _Questions, **given: str | None) -> dict[str, Any]:
    """What is asked of a campaign on tables; a flag for one on images is refused."""
    from fedage.common.campaign.new import reads_tables

    if not reads_tables(kind):
        if flags := [flag for flag, value in given.items() if value is not None]:
            told = ", ".join(f"--{flag.removesuffix('_column')}" for flag in flags)
            raise CannotWrite(f"{told}: only for campaigns on tables, and {kind} reads images; leave it out")
        return {}
    found: dict[str, Any] = {
        "age_column": ask("table.age", "Column with the age in years", given["age"], default="age"),
        "id_column": ask(
            "table.id", "Column that tells patients apart (none: every row is one)", given["id_column"], default=""
        )
        or None,
        "sex_column": ask("table.sex", "Column with the sex (none: not known)", given["sex"], default="") or None,
    }
    if kind is not None:
        question = 'Features, columns or patterns with commas between ("*": every numeric column)'
        found["features"] = ask("features", question, given["features"], default=("*",), read=_list)
    return found


def _follow_up(kind: str | None, ask: _Questions, **given: str | None) -> dict[str, Any]:
    """What is asked of a campaign with a survival analysis, which one without an estimator always is."""
    wanted = kind is None or any(value is not None for value in given.values())
    if not wanted and ask.asking:
        wanted = typer.confirm("Relate the age gap to follow-up (survival analysis)?", default=False)
    if not wanted:
        return {}
    usual = ("age_years",) if kind is None else ("gap_years", "age_years")
    return {
        "time_column": ask(
            "survival.time", "Column with the follow-up time in years", given["time"], default="time_years"
        ),
        "event_column": ask("survival.event", "Column with 1 = event, 0 = censored", given["event"], default="event"),
        "covariates": ask("covariates", "Covariates of the Cox model", given["covariates"], default=usual, read=_list),
    }


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _write(out: Path, text: str, *, force: bool) -> None:
    try:
        with out.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise CannotWrite(f"{out} cannot be written ({error.strerror}); give another file with --out") from None
