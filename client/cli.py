"""`fedage site`: what a hospital types."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

site = typer.Typer(help="Run a hospital: index its images, approve campaigns, take part.", no_args_is_help=True)

Home = Annotated[Path, typer.Option("--home", help="the site's folder", envvar="FEDAGE_SITE_HOME")]


@site.command("init")
def init(
    home: Home,
    name: Annotated[str, typer.Option(help="the site's name, lower-case letters, digits and hyphens")],
    coordinator: Annotated[str, typer.Option(help="host:port of the coordinator")],
    ca: Annotated[Path, typer.Option(help="the coordinator's CA certificate")],
    coordinator_key: Annotated[Path, typer.Option(help="the coordinator's public signing key")],
    data: Annotated[Path | None, typer.Option(help="folder with the images, opened read-only")] = None,
    outcomes: Annotated[Path | None, typer.Option(help="CSV with outcomes, one row a patient")] = None,
    store_key: Annotated[
        Path | None, typer.Option(help="restore this key for hashing identifiers instead of making one")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads a training may use", min=1)] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
) -> None:
    """Make the site's folder: its node key, its configuration, the coordinator it trusts."""
    from fedage.client.home import init_site

    made = init_site(
        home,
        name=name,
        coordinator=coordinator,
        ca_certificate=ca,
        coordinator_public_key=coordinator_key,
        data=data,
        outcomes=outcomes,
        store_key_file=store_key,
        threads=threads,
        device=device,
    )
    typer.echo(f"site {name} ready in {made.root}")
    typer.echo(f"send to the coordinator: {made.node_public_key}")


@site.command("index")
def index(home: Home) -> None:
    """Read the image folder and the outcomes into the site's own store; only what changed is read again."""
    from fedage.client.indexing import index_site

    index_site(home)


@site.command("start")
def start(
    home: Home,
    with_parent: Annotated[
        bool, typer.Option("--with-parent", help="stop when standard input closes", hidden=True)
    ] = False,
) -> None:
    """Run the site agent and the SuperNode with its relay until interrupted; restart what dies."""
    from fedage.client.agent.supervise import run_site
    from fedage.client.home import SiteHome
    from fedage.common.lifetime import until_told_to_stop

    loaded = SiteHome.load(home)
    with until_told_to_stop(with_parent=with_parent) as stop:
        run_site(loaded, stop_event=stop, on_status=lambda text: typer.echo(f"{loaded.config.name}: {text}"))


@site.command("campaigns")
def campaigns(home: Home) -> None:
    """List the campaigns offered and approved, with what each asks, in words."""
    from fedage.client.approvals import Approvals
    from fedage.client.home import SiteHome
    from fedage.common.campaign import CampaignErrors, parse_campaign
    from fedage.common.campaign.describe import in_words

    approvals = Approvals(SiteHome.load(home).root)
    listed = approvals.listed()
    if not listed:
        typer.echo("no campaign has been offered or approved yet")
    for digest, approved in listed:
        try:
            campaign = parse_campaign(approvals.text(digest))
        except CampaignErrors as errors:
            typer.echo(f"{digest}  offered, unusable: {len(errors.problems)} mistakes in the file")
            continue
        typer.echo(f"{digest}  {'approved' if approved else 'offered'}  {campaign.campaign.name}")
        for sentence in in_words(campaign):
            typer.echo(f"    - {sentence}")


@site.command("approve")
def approve(
    home: Home, campaign: Annotated[str, typer.Argument(help="the campaign file, or the start of an offered digest")]
) -> None:
    """Approve a campaign file: this site will answer for exactly this text."""
    from fedage.client.approvals import Approvals
    from fedage.client.home import SiteHome
    from fedage.common.campaign import load_campaign

    approvals = Approvals(SiteHome.load(home).root)
    path = Path(campaign)
    approved = approvals.approve(load_campaign(path).text if path.is_file() else approvals.offered_text(campaign))
    typer.echo(f"approved {approved.campaign.name}, digest {approved.digest}")


@site.command("revoke")
def revoke(home: Home, digest: Annotated[str, typer.Argument(help="digest of an approved campaign")]) -> None:
    """Take an approval back; the next message of that campaign is refused."""
    from fedage.client.approvals import Approvals
    from fedage.client.home import SiteHome

    Approvals(SiteHome.load(home).root).revoke(digest)
    typer.echo(f"revoked {digest}")
