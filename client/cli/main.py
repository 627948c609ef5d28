"""`fedage site`: what a hospital types."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedage.client.cli.audit import audit
from fedage.client.cli.policy import policy

site = typer.Typer(help="Run a hospital: index its images, approve campaigns, take part.", no_args_is_help=True)
site.add_typer(audit, name="audit")
site.add_typer(policy, name="policy")

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
    recipe: Annotated[
        str | None,
        typer.Option(help="public data set in data: rsna-pneumonia, rsna-mammography, vindr, embed, cmmd, openbhb"),
    ] = None,
) -> None:
    """Make the site's folder: its node key, its configuration, the coordinator it trusts, a policy to be edited."""
    from fedage.client.consent.policy import POLICY_FILE, write_default
    from fedage.client.site.home import init_site

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
        recipe=recipe,
    )
    if not (made.root / POLICY_FILE).exists():
        write_default(made.root / POLICY_FILE)
    typer.echo(f"site {name} ready in {made.root}; what it allows is in {POLICY_FILE} (fedage site policy show)")
    typer.echo(f"send to the coordinator: {made.node_public_key}")


@site.command("index")
def index(home: Home) -> None:
    """Read DICOM files, a BIDS data set or a table, and the outcomes, into the site's own store; only what changed."""
    from fedage.client.cli.index import index_site

    index_site(home)


@site.command("start")
def start(
    home: Home,
    with_parent: Annotated[
        bool, typer.Option("--with-parent", help="stop when standard input closes", hidden=True)
    ] = False,
) -> None:
    """Run the site agent and the SuperNode with its relay until interrupted; restart what dies."""
    from fedage.client.site.home import SiteHome
    from fedage.client.supervisor.supervise import run_site
    from fedage.deploy.machine.lifetime import until_told_to_stop

    loaded = SiteHome.load(home)
    with until_told_to_stop(with_parent=with_parent) as stop:
        run_site(loaded, stop_event=stop, on_status=lambda text: typer.echo(f"{loaded.config.name}: {text}"))


@site.command("split")
def split(home: Home) -> None:
    """Give the relay its own folder, for the user named by relay_user in site.toml. As root, once."""
    from fedage.client.node.node_folder import owner_of, prepare
    from fedage.client.site.home import SiteHome

    loaded = SiteHome.load(home)
    side = prepare(loaded)
    typer.echo(f"{side.folder} ready; run fedage site agent --home {home} as {owner_of(loaded)}")
    typer.echo(f"and fedage site node --relay {side.folder} as {loaded.config.relay_user}")


@site.command("agent")
def agent(home: Home) -> None:
    """Run the agent alone, where the relay runs as another user; restart it when it dies."""
    from fedage.client.site.home import SiteHome
    from fedage.client.supervisor.supervise import run_agent
    from fedage.deploy.machine.lifetime import until_told_to_stop

    loaded = SiteHome.load(home)
    with until_told_to_stop() as stop:
        run_agent(loaded, stop_event=stop, on_status=lambda text: typer.echo(f"{loaded.config.name}: {text}"))


@site.command("node")
def node(
    relay: Annotated[
        Path, typer.Option("--relay", readable=False, help="the relay's folder, as fedage site split made it")
    ],
) -> None:
    """Run the SuperNode and its relay alone, as the relay's user; restart them when they die."""
    from fedage.client.supervisor.supervise import run_node
    from fedage.deploy.machine.lifetime import until_told_to_stop

    with until_told_to_stop() as stop:
        run_node(relay, stop_event=stop, on_status=lambda text: typer.echo(f"node: {text}"))


@site.command("status")
def status(home: Home) -> None:
    """Say how agent, node and relay are: health, version, since when, and what is handled now."""
    from fedage.client.site.home import SiteHome
    from fedage.client.supervisor.status import site_status

    for line in site_status(SiteHome.load(home)):
        typer.echo(line)


@site.command("campaigns")
def campaigns(home: Home) -> None:
    """List the campaigns offered, approved and declined: who asks, what leaves, and what this site's policy says."""
    from fedage.client.cli.campaign_text import campaign_text, title
    from fedage.client.inbox.deployed import DeployedSite

    rules = DeployedSite.load(home).rules
    listed = rules.approvals.listed()
    if not listed:
        typer.echo("no campaign has been offered or approved yet")
    for digest, state in listed:
        typer.echo(title(rules, digest, state))
        for sentence in campaign_text(rules, digest):
            typer.echo(f"    - {sentence}")


@site.command("approve")
def approve(
    home: Home,
    campaign: Annotated[str, typer.Argument(help="the campaign file, or the start of an offered digest")],
    data_set: Annotated[
        str | None, typer.Option(help="data set of policy.toml to use, where more than one fits")
    ] = None,
    accept_few_changes: Annotated[
        bool,
        typer.Option("--accept-few-changes", help="approve anew though values of a few patients only have changed"),
    ] = False,
    accept_similar_columns: Annotated[
        bool,
        typer.Option(
            "--accept-similar-columns",
            help="give sums by columns that differ for a few patients from columns of earlier campaigns",
        ),
    ] = False,
    accept_other_sites: Annotated[
        bool,
        typer.Option(
            "--accept-other-sites",
            help="open hidden sums over other sites than in earlier campaigns; agree with those who are not in it",
        ),
    ] = False,
) -> None:
    """Approve a campaign file: this site will answer for exactly this text, over the patients it has now."""
    from fedage.client.cli.campaign_text import similar_columns_text
    from fedage.client.consent.accounts.sum_keys import accept_other_sites as accept_other_sites_of
    from fedage.client.inbox.deployed import DeployedSite
    from fedage.common.campaign_file import parse_campaign
    from fedage.common.errors import FedAgeError
    from fedage.common.protocol.messages import RequestRefused
    from fedage.deploy.machine.campaign_file import load_campaign

    rules = DeployedSite.load(home).rules
    path = Path(campaign)
    parsed = load_campaign(path) if path.is_file() else parse_campaign(rules.approvals.text(_digest(home, campaign)))
    try:
        similar = [] if accept_similar_columns else list(similar_columns_text(rules, parsed, data_set=data_set))
        approved = rules.approve(
            parsed, data_set=data_set, few_changes=accept_few_changes, similar_columns=accept_similar_columns
        )
        if parsed.privacy.secure_aggregation:
            accept_other_sites_of(rules.home, parsed.digest, other_sites=accept_other_sites)
    except RequestRefused as refused:
        raise FedAgeError(f"not approved (rule {refused.rule}): {refused.detail}") from None
    patients = len(approved.snapshot.patients)
    for sentence in similar:
        typer.echo(sentence)
    typer.echo(f"approved {parsed.campaign.name}, digest {parsed.digest}")
    typer.echo(f"its cohort is frozen: {patients} patients of data set {approved.snapshot.data_set}")
    if approved.cohort_of is not None:
        typer.echo(
            f"that is the cohort of campaign {approved.cohort_of[:16]}…: today's differs from it by fewer than "
            f"{approved.allowed.minimum_count} patients, whose values two sums would give away"
        )
    if patients < approved.allowed.minimum_count:
        typer.echo(f"fewer than {approved.allowed.minimum_count} patients: every answer will be withheld")


@site.command("decline")
def decline(
    home: Home, digest: Annotated[str, typer.Argument(help="digest of an offered campaign, or its start")]
) -> None:
    """Say no to an offered campaign; its messages are refused."""
    from fedage.client.inbox.deployed import DeployedSite

    whole_digest = _digest(home, digest)
    DeployedSite.load(home).rules.decline(whole_digest)
    typer.echo(f"declined {whole_digest}")


@site.command("revoke")
def revoke(
    home: Home, digest: Annotated[str, typer.Argument(help="digest of an approved campaign, or its start")]
) -> None:
    """Take an approval back; the next message of that campaign is refused, and one being computed does not leave."""
    from fedage.client.inbox.deployed import DeployedSite

    whole_digest = _digest(home, digest, approved_only=True)
    DeployedSite.load(home).rules.revoke(whole_digest)
    typer.echo(f"revoked {whole_digest}")


@site.command("out-of-fold")
def out_of_fold(
    home: Home,
    members: Annotated[
        list[str],
        typer.Argument(metavar="NAME=DIGEST", help="a column's name and the start of an approved campaign's digest"),
    ],
    out: Annotated[Path | None, typer.Option(help="the CSV to write; in the site's folder if not given")] = None,
) -> None:
    """Write the ages that campaigns with folds predicted here into a table for `age-ensemble`; it stays here."""
    from fedage.client.prediction.out_of_fold import members_of, settings_for, write_out_of_fold

    done = write_out_of_fold(home, members_of(members), out=out)
    for name, run in done.runs.items():
        typer.echo(f"{name}: run {run}")
    if done.other_exams:
        typer.echo(f"{done.other_exams} patients left out: members judged different exams of them")
    typer.echo(f"{done.patients} patients in {done.file}; to offer them, index once more with this in site.toml:")
    typer.echo(settings_for(done.file))


def _digest(home: Path, start: str, *, approved_only: bool = False) -> str:
    from fedage.client.consent.approvals import Approvals
    from fedage.client.site.home import SiteHome

    approvals = Approvals(SiteHome.load(home).root)
    return approvals.find(start, among=("approved",)) if approved_only else approvals.find(start)
