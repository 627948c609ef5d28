"""`fedage coordinator` and `fedage campaign`: what a coordinator types."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedage.server.new_campaign import new

coordinator = typer.Typer(help="Run the coordinator: its SuperLink, its certificates, its sites.", no_args_is_help=True)
campaign = typer.Typer(help="Write, check and run campaigns.", no_args_is_help=True)
campaign.command("new")(new)

Home = Annotated[Path, typer.Option("--home", help="the coordinator's folder", envvar="FEDAGE_COORDINATOR_HOME")]


@coordinator.command("init")
def init(
    home: Home,
    host: Annotated[list[str] | None, typer.Option(help="names and addresses sites reach it by")] = None,
    port: Annotated[int, typer.Option(help="port of the SuperLink")] = 8443,
) -> None:
    """Make the coordinator's folder: its certificate authority, its server certificate, its signing key."""
    from fedage.server.network.home import init_home

    made = init_home(home, hosts=tuple(host or ("localhost",)), port=port)
    typer.echo(f"coordinator ready in {made.root}")
    typer.echo(f"give to sites: {made.ca_certificate} and {made.signing_public_key}")


@coordinator.command("start")
def start(
    home: Home,
    port: Annotated[int | None, typer.Option(help="another port than the configured one; 0 takes a free one")] = None,
    with_parent: Annotated[
        bool, typer.Option("--with-parent", help="stop when standard input closes", hidden=True)
    ] = False,
) -> None:
    """Run the SuperLink with TLS and node authentication until interrupted."""
    from fedage.common.lifetime import until_told_to_stop
    from fedage.server.network.home import CoordinatorHome
    from fedage.server.network.superlink import SuperLink

    loaded = CoordinatorHome.load(home)
    with until_told_to_stop(with_parent=with_parent) as stop, SuperLink(loaded, port=port) as link:
        typer.echo(f"listening on {link.address}")
        while not stop.wait(0.5):
            link.check_alive()
    typer.echo("stopped")


@coordinator.command("admit")
def admit(
    home: Home,
    name: Annotated[str, typer.Argument(help="the site's name")],
    public_key: Annotated[Path, typer.Argument(help="the site's node.pub")],
) -> None:
    """Admit a site by its node key; it can connect at once."""
    from fedage.server.network.home import CoordinatorHome
    from fedage.server.network.superlink import register_node

    register_node(CoordinatorHome.load(home), public_key, name)
    typer.echo(f"admitted {name}")


@coordinator.command("heads")
def heads(
    home: Home,
    site: Annotated[str, typer.Argument(help="the site's name")],
    out: Annotated[Path | None, typer.Option(help="write the heads here, for fedage site audit verify --head")] = None,
    begin_anew: Annotated[
        bool, typer.Option("--begin-anew", help="set key and heads aside; the next key the site tells is pinned")
    ] = False,
) -> None:
    """Show or export what this coordinator keeps of a site's audit log: its key, and the heads the site has signed.

    With the exported file the site, or its auditor, sees whether its log was cut, edited or put back.
    """
    from fedage.common.errors import FedAgeError
    from fedage.common.heads import fingerprint
    from fedage.server.heads import Heads
    from fedage.server.network.home import CoordinatorHome

    loaded = CoordinatorHome.load(home)
    names = sorted(set(loaded.admitted().values()))
    if site not in names:
        known = f"admitted are {', '.join(names)}" if names else "no site is admitted yet"
        raise FedAgeError(f"no site is admitted as {site!r}; {known}")
    kept = Heads(loaded.heads)
    found, key = kept.all(site), kept.key(site)
    if out is not None:
        out.write_text("".join(f"{head.to_json()}\n" for head in found), encoding="utf-8")
        typer.echo(f"{len(found)} heads of {site} written to {out}")
    elif key is None:
        typer.echo(f"nothing has come from the audit log of {site} yet")
    else:
        last = f", the last of line {found[-1].sequence} ({found[-1].time_utc})" if found else ""
        typer.echo(f"{site}: audit key {fingerprint(key)}, {len(found)} heads{last}")
    if begin_anew:
        moved = kept.begin_anew(site)
        typer.echo(f"begun anew for {site}" + (f"; the old heads are in {moved}" if moved else ""))


@campaign.command("check")
def check(file: Annotated[Path, typer.Argument(help="the campaign file")]) -> None:
    """Check a campaign file: every mistake at once, or its digest and what it means in words."""
    from fedage.common.campaign import load_campaign
    from fedage.common.campaign.describe import in_words

    checked = load_campaign(file)
    typer.echo(f"{file}: ok")
    typer.echo(f"digest {checked.digest}")
    for sentence in in_words(checked):
        typer.echo(f"- {sentence}")


@campaign.command("run")
def run(
    file: Annotated[Path, typer.Argument(help="the campaign file")],
    home: Home,
    out: Annotated[Path | None, typer.Option(help="also put the record here when the run ends")] = None,
    name: Annotated[str | None, typer.Option(help="name of the run; the time if not given")] = None,
) -> None:
    """Run a campaign with the admitted sites and follow it to its report."""
    from fedage.common.campaign import load_campaign
    from fedage.server.launch import launch
    from fedage.server.network.home import CoordinatorHome

    status = launch(CoordinatorHome.load(home), load_campaign(file), run=name, out=out)
    if status != "finished":
        raise typer.Exit(1)
