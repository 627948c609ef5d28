"""`fedage site audit`: is the log whole, and what does it say."""

from __future__ import annotations

import sys
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from fedage.common.errors import FedAgeError

if TYPE_CHECKING:
    from fedage.client.audit import Entry

_Enum = TypeVar("_Enum", bound=StrEnum)

audit = typer.Typer(help="The site's audit log: verify it, read it, export it.", no_args_is_help=True)

Home = Annotated[Path, typer.Option("--home", help="the site's folder", envvar="FEDAGE_SITE_HOME")]


@audit.command("verify")
def verify(
    home: Home,
    head: Annotated[
        list[Path] | None, typer.Option(help="heads that somebody kept, one JSON object a line; e.g. the coordinator's")
    ] = None,
) -> None:
    """Say whether a line was edited, removed, reordered or cut off; exit status 1 if so."""
    from fedage.client.audit import HeadMalformed, read_heads, verify
    from fedage.client.audit.log import LOG_FILE

    try:
        heads = [one for file in head or [] for one in read_heads(file)]
    except (OSError, HeadMalformed) as error:
        what = error if isinstance(error, HeadMalformed) else f"cannot be read ({error.strerror})"
        raise FedAgeError(f"--head: {what}; give a file of heads, one JSON object a line") from None
    report = verify(home / LOG_FILE, heads=heads)
    for finding in report.findings:
        typer.echo(f"{finding.damage}: {finding.detail}")
    for line in report.clock_jumps:
        typer.echo(f"note: line {line} is dated before the line above it; the clock was set back")
    if not report.intact:
        raise typer.Exit(1)
    against = f"{report.heads} kept head{'' if report.heads == 1 else 's'}"
    typer.echo(f"the audit log is intact: {report.lines} lines, held against {against}")


@audit.command("key")
def key(home: Home) -> None:
    """Print this site's public key as campaign files with secure aggregation name it; give it to the coordinator.

    Before approving such a campaign, compare the keys in it with what the other sites print, by telephone say: whoever
    could put another key in the place of a site's would be that site to the others.
    """
    from fedage.client.audit.log import KEY_FILE, PUBLIC_KEY_FILE, site_key
    from fedage.client.site.home import SiteHome
    from fedage.common.protocol.heads import key_to_hex

    site = SiteHome.load(home)
    try:
        found = site_key(home / KEY_FILE, public=home / PUBLIC_KEY_FILE)
    except (OSError, ValueError):
        raise FedAgeError(f"{home / KEY_FILE} cannot be read, or holds no Ed25519 key; restore it") from None
    typer.echo(f'{site.config.name} = "{key_to_hex(found.public_key())}"')


@audit.command("show")
def show(
    home: Home,
    direction: Annotated[str | None, typer.Option(help="in, out or site")] = None,
    kind: Annotated[str | None, typer.Option(help="train, evaluate, query.describe, query.analyse, approve, …")] = None,
    outcome: Annotated[str | None, typer.Option(help="ok, refused, again or failed")] = None,
    rule: Annotated[str | None, typer.Option(help="rule that refused")] = None,
    campaign: Annotated[str | None, typer.Option(help="name of a campaign")] = None,
    digest: Annotated[str | None, typer.Option(help="digest of a campaign, or its start")] = None,
    who: Annotated[str | None, typer.Option(help="fingerprint of a coordinator, or its start")] = None,
    since: Annotated[str | None, typer.Option(help="time with its zone, e.g. 2025-01-31T08:00+01:00")] = None,
    until: Annotated[str | None, typer.Option(help="time with its zone; not included")] = None,
    last: Annotated[int | None, typer.Option(help="only so many, the newest", min=1)] = None,
    csv: Annotated[str | None, typer.Option(help="write every field as CSV to this file; - for the screen")] = None,
) -> None:
    """What came in, what left and what was decided, a line each."""
    from fedage.client.audit import Direction, Filters, Kind, Outcome, export_csv, show
    from fedage.client.audit.log import LOG_FILE

    filters = Filters(
        direction=_one_of(Direction, direction, name="direction"),
        kind=_one_of(Kind, kind, name="kind"),
        outcome=_one_of(Outcome, outcome, name="outcome"),
        rule=rule,
        campaign=campaign,
        digest=digest,
        who=who,
        since=_time(since, name="since"),
        until=_time(until, name="until"),
        last=last,
    )
    chosen = show(home / LOG_FILE, filters)
    if csv == "-":
        export_csv(chosen, to=sys.stdout)
    elif csv is not None:
        try:
            with Path(csv).open("w", newline="", encoding="utf-8") as file:
                export_csv(chosen, to=file)
        except OSError as error:
            raise FedAgeError(f"--csv {csv} cannot be written ({error.strerror}); name a file that can be") from None
        typer.echo(f"{len(chosen)} lines in {csv}")
    else:
        for line in chosen:
            typer.echo(_line_text(line.sequence, line.time_utc, line.entry))


def _line_text(sequence: int, time_utc: str, entry: Entry) -> str:
    parts = [f"{sequence:6d}  {time_utc[:19]}Z  {entry.direction:4s} {entry.kind:14s} {entry.outcome}"]
    if entry.rule:
        parts.append(f"({entry.rule})")
    if entry.campaign or entry.digest:
        parts.append(f" {entry.campaign or ''} {(entry.digest or '')[:12]}")
    if entry.round or entry.fold:
        parts.append(f" round {entry.round}, fold {entry.fold}")
    if entry.folded:
        parts.append(f" {entry.folded} more messages that no coordinator signed, together")
    if entry.size_bytes:
        parts.append(f" {entry.size_bytes} bytes")
    if entry.patients is not None:
        smallest = "" if entry.smallest_cell is None else f", smallest cell {entry.smallest_cell}"
        parts.append(f" {entry.patients} patients{smallest}")
    if entry.epsilon_micro:
        parts.append(f" ε {entry.epsilon_micro / 1e6:.6f}")
    if entry.withheld:
        parts.append(f" withheld: {', '.join(f'{held.step} ({held.rule})' for held in entry.withheld)}")
    return " ".join(parts).rstrip()


def _one_of(kind: type[_Enum], text: str | None, *, name: str) -> _Enum | None:
    if text is None:
        return None
    try:
        return kind(text)
    except ValueError:
        allowed = ", ".join(one.value for one in kind)
        raise FedAgeError(f"--{name} {text!r} must be one of {allowed}") from None


def _time(text: str | None, *, name: str) -> datetime | None:
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise FedAgeError(f"--{name} {text!r} must be a time with its zone; write e.g. 2025-01-31T08:00+01:00")
    return time
