"""`fedage coordinator` and `fedage campaign`: what a coordinator types."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import typer

from fedage.server.cli.leave_out import leave_out, left_out
from fedage.server.cli.new_campaign import new

coordinator = typer.Typer(help="Run the coordinator: its SuperLink, its certificates, its sites.", no_args_is_help=True)
campaign = typer.Typer(help="Write, check and run campaigns.", no_args_is_help=True)
campaign.command("new")(new)
campaign.command("leave-out")(leave_out)
campaign.command("left-out")(left_out)

Home = Annotated[Path, typer.Option("--home", help="the coordinator's folder", envvar="FEDAGE_COORDINATOR_HOME")]


@coordinator.command("init")
def init(
    home: Home,
    host: Annotated[
        list[str] | None, typer.Option(help="names and addresses sites reach it by [default: localhost]")
    ] = None,
    port: Annotated[int | None, typer.Option(help="port of the SuperLink [default: 8443]")] = None,
) -> None:
    """Make the coordinator's folder: its certificate authority, its server certificate, its signing key.

    On a folder that is there it makes what is missing, changes no key, and puts --host and --port in place of the old.
    """
    from fedage.server.superlink.control import running
    from fedage.server.superlink.home import CoordinatorHome, init_home

    before = CoordinatorHome.load(home).config if (home / "coordinator.toml").is_file() else None
    made = init_home(home, hosts=tuple(host) if host else None, port=port)
    typer.echo(f"coordinator ready in {made.root}")
    now = made.config
    if before is not None and now != before:
        typer.echo(f"changed: {_where(before.hosts, before.port)} is now {_where(now.hosts, now.port)}")
        again = f"fedage coordinator start --home {home}"
        typer.echo(f"it listens there once it is started again: {again}" if running(made) else f"start it: {again}")
        typer.echo(f'sites that were made before need coordinator = "{now.hosts[0]}:{now.port}" in their site.toml')
    elif before is not None:
        typer.echo(f"it was there already, as {_where(now.hosts, now.port)}; nothing was changed")
    typer.echo(f"give to sites: {made.ca_certificate} and {made.signing_public_key}")


def _where(hosts: tuple[str, ...], port: int) -> str:
    return f"{', '.join(hosts)} port {port}"


@coordinator.command("start")
def start(
    home: Home,
    port: Annotated[int | None, typer.Option(help="another port than the configured one; 0 takes a free one")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on with the runs that the end of an earlier start cut off")
    ] = False,
    with_parent: Annotated[
        bool, typer.Option("--with-parent", help="stop when standard input closes", hidden=True)
    ] = False,
) -> None:
    """Run the SuperLink with TLS and node authentication until interrupted; start again what dies.

    A run whose process is gone gets its record here. One that an earlier start left behind does too, or goes on with
    --resume, as a service manager may start the coordinator.
    """
    from fedage.deploy.machine.lifetime import until_told_to_stop
    from fedage.server.cli.watch_runs import WatchRuns
    from fedage.server.superlink.home import CoordinatorHome
    from fedage.server.superlink.superlink import SuperLink

    loaded = CoordinatorHome.load(home)
    with until_told_to_stop(with_parent=with_parent) as stop:
        runs = WatchRuns(loaded, tell=typer.echo)
        with SuperLink(loaded, port=port, tell=typer.echo) as link:
            typer.echo(f"listening on {link.address}")
            runs.left_behind(resume=resume)
            while not stop.wait(0.5):
                link.look()
                runs.look()
        runs.at_the_end()
    typer.echo("stopped")


@coordinator.command("admit")
def admit(
    home: Home,
    name: Annotated[str, typer.Argument(help="the site's name")],
    public_key: Annotated[Path, typer.Argument(help="the site's node.pub")],
) -> None:
    """Admit a site by its node key; it can connect at once."""
    from fedage.server.superlink.admission import register_node
    from fedage.server.superlink.home import CoordinatorHome

    loaded = CoordinatorHome.load(home)
    before = loaded.admitted()
    known = register_node(loaded, public_key, name) in before
    typer.echo(f"{name} is admitted already, with this key; nothing was changed" if known else f"admitted {name}")


@coordinator.command("sites")
def sites(home: Home) -> None:
    """List the admitted sites: online or not, since when, and the start of each node key's SHA-256."""
    from fedage.server.superlink.admission import admitted_sites
    from fedage.server.superlink.control import running
    from fedage.server.superlink.home import CoordinatorHome

    loaded = CoordinatorHome.load(home)
    listed = admitted_sites(loaded)
    if not running(loaded):
        typer.echo("the coordinator is not running, so whether sites are online is not known")
    if not listed:
        typer.echo(f"no site is admitted yet; fedage coordinator admit --home {home} NAME node.pub")
    for site in listed:
        since = f" since {site.since_utc[:19].replace('T', ' ')} UTC" if site.since_utc else ""
        key = f", key {site.key}" if site.key else ""
        name = site.name or f"(node {site.node_id}, admitted under no name)"
        typer.echo(f"{name}: {site.status}{since}{key}")


@coordinator.command("rename")
def rename(
    home: Home,
    old: Annotated[str, typer.Argument(help="the name it was admitted under")],
    new: Annotated[str, typer.Argument(help="its name from now on, the same as in its site.toml")],
) -> None:
    """Give an admitted site another name, for instance after a slip; its node key and its heads stay with it."""
    from fedage.server.superlink.admission import rename_site
    from fedage.server.superlink.home import CoordinatorHome

    typer.echo(rename_site(CoordinatorHome.load(home), old, new))


@coordinator.command("remove")
def remove(home: Home, name: Annotated[str, typer.Argument(help="the site's name")]) -> None:
    """Take a site's admission back: it is cut off at once. What is kept of its audit log stays."""
    from fedage.server.superlink.admission import remove_site
    from fedage.server.superlink.home import CoordinatorHome

    remove_site(CoordinatorHome.load(home), name)
    typer.echo(f"removed {name}; the same key or a new one can be admitted again")


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
    from fedage.common.protocol.heads import fingerprint
    from fedage.server.record.heads import Heads
    from fedage.server.superlink.home import CoordinatorHome

    loaded = CoordinatorHome.load(home)
    names = sorted(set(loaded.admitted().values()))
    if site not in names:
        known = f"admitted are {', '.join(names)}" if names else "no site is admitted yet"
        raise FedAgeError(f"no site is admitted as {site!r}; {known}")
    kept = Heads(loaded.heads)
    all_heads, key = kept.all(site), kept.key(site)
    if out is not None:
        out.write_text("".join(f"{head.to_json()}\n" for head in all_heads), encoding="utf-8")
        typer.echo(f"{len(all_heads)} heads of {site} written to {out}")
    elif key is None:
        typer.echo(f"nothing has come from the audit log of {site} yet")
    else:
        last = f", the last of line {all_heads[-1].sequence} ({all_heads[-1].time_utc})" if all_heads else ""
        typer.echo(f"{site}: audit key {fingerprint(key)}, {len(all_heads)} heads{last}")
    if begin_anew:
        moved = kept.begin_anew(site)
        typer.echo(f"begun anew for {site}" + (f"; the old heads are in {moved}" if moved else ""))


@campaign.command("check")
def check(file: Annotated[Path, typer.Argument(help="the campaign file")]) -> None:
    """Check a campaign file: every mistake at once, or its digest and what it means in words."""
    from fedage.common.campaign_file.describe import campaign_sentences, limits_off_the_grid
    from fedage.deploy.machine.campaign_file import load_campaign

    checked = load_campaign(file)
    typer.echo(f"{file}: ok")
    typer.echo(f"digest {checked.digest}")
    for sentence in campaign_sentences(checked):
        typer.echo(f"- {sentence}")
    if odd := limits_off_the_grid(checked):
        typer.echo(f"note: {odd}")
    if checked.privacy.mode == "client":
        from fedage.server.cli.privacy_plan import privacy_plan

        for line in privacy_plan(checked):
            typer.echo(line)


@campaign.command("privacy")
def privacy(
    file: Annotated[Path, typer.Argument(help="the campaign file")],
    patients: Annotated[
        list[int] | None,
        typer.Option(min=1, help="patients of a site; several times for several sizes [default: 50 to 1000]"),
    ] = None,
    features: Annotated[int, typer.Option(min=1, help="features of a row, of an estimator on tables")] = 100,
    budget: Annotated[
        float | None, typer.Option(min=1e-6, help="ε that a site's data set may spend, unused until now")
    ] = None,
) -> None:
    """Show what differential privacy will cost before it is spent: the noise and ε, by the size or number of sites."""
    from fedage.deploy.machine.campaign_file import load_campaign
    from fedage.server.cli.privacy_plan import SIZES, privacy_plan

    for line in privacy_plan(load_campaign(file), patients=tuple(patients or SIZES), features=features, budget=budget):
        typer.echo(line)


@campaign.command("run")
def run(
    file: Annotated[Path, typer.Argument(help="the campaign file")],
    home: Home,
    out: Annotated[Path | None, typer.Option(help="also put the record here when the run ends")] = None,
    name: Annotated[str | None, typer.Option(help="name of the run; the time if not given")] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="the bundle that the file names in estimator.bundle or training.start_bundle")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="file of the weights that the campaign begins with, if it names some")
    ] = None,
    with_parent: Annotated[
        bool, typer.Option("--with-parent", help="stop when the process that started this is gone", hidden=True)
    ] = False,
) -> None:
    """Run a campaign with the admitted sites and follow it to its report."""
    from fedage.deploy.machine.campaign_file import load_campaign
    from fedage.deploy.machine.processes import end_with_parent
    from fedage.server.cli.launch import launch
    from fedage.server.superlink.home import CoordinatorHome

    if with_parent:
        end_with_parent()
    status = launch(CoordinatorHome.load(home), load_campaign(file), run=name, out=out, bundle=bundle, weights=weights)
    if status != "finished":
        raise typer.Exit(130 if status == "stopped" else 1)


@campaign.command("weights")
def published_weights(
    file: Annotated[Path, typer.Argument(help="a published state dict (.pth) of an image network")],
    backbone: Annotated[str, typer.Option(help="which network, as estimator.options.backbone names it, or sfcn")],
    out: Annotated[Path, typer.Option(help="the file to write")],
) -> None:
    """Turn published weights into the file that a campaign begins with, and say its digest for the campaign file."""
    from fedage.server.cli.published_weights import write_weights

    digest = write_weights(file, backbone=backbone, out=out)
    typer.echo(f'{out}: weights_sha256 = "{digest}"')


@campaign.command("list")
def list_runs(home: Home) -> None:
    """List the runs of this coordinator: how each ended or how far it is, and which can be resumed."""
    from fedage.server.cli.runs import listed
    from fedage.server.superlink.home import CoordinatorHome

    loaded = CoordinatorHome.load(home)
    lines = listed(loaded.runs)
    typer.echo("\n".join(lines) if lines else f"no run yet below {loaded.runs}")


RunName = Annotated[
    str | None, typer.Argument(metavar="[CAMPAIGN/RUN]", help="the run; the one that goes on if not given")
]


@campaign.command("status")
def status(home: Home, run_name: RunName = None) -> None:
    """Show how runs are: sites, round, loss, error, seconds a round, time left."""
    from rich.console import Console

    from fedage.server.cli.status import show_status
    from fedage.server.superlink.home import CoordinatorHome

    show_status(CoordinatorHome.load(home).runs, run_name, console=Console(highlight=False))


@campaign.command("watch")
def watch(home: Home, run_name: RunName = None) -> None:
    """Show how a run is, anew every second, until it ends; closing this does not stop the run."""
    from rich.console import Console

    from fedage.server.cli.status import run_named, watch_run
    from fedage.server.superlink.home import CoordinatorHome

    watch_run(run_named(CoordinatorHome.load(home).runs, run_name), console=Console(highlight=False))


@campaign.command("stop")
def stop(
    home: Home,
    run_name: RunName = None,
    after_round: Annotated[
        bool, typer.Option("--after-round", help="let the round under way end first; else it is abandoned")
    ] = False,
) -> None:
    """Stop a run. Its record is written, and it can be resumed."""
    from fedage.server.cli.launch import stop as stop_run
    from fedage.server.superlink.home import CoordinatorHome

    loaded = CoordinatorHome.load(home)
    typer.echo(stop_run(loaded, run_name, after_round=after_round))


@campaign.command("resume")
def resume(
    home: Home,
    run_name: Annotated[
        str | None, typer.Argument(metavar="[CAMPAIGN/RUN]", help="the run; the last that did not finish if not given")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="also put the record here when the run ends")] = None,
    with_parent: Annotated[
        bool, typer.Option("--with-parent", help="stop when the process that started this is gone", hidden=True)
    ] = False,
) -> None:
    """Go on with a run that was stopped, killed or failed, after its last finished round or exchange.

    The sites count it as the same run. With the same sites taking part it ends with the same model and figures as a run
    that was never interrupted.
    """
    from fedage.deploy.machine.processes import end_with_parent
    from fedage.server.cli.launch import resume as go_on
    from fedage.server.cli.runs import unfinished_run
    from fedage.server.superlink.home import CoordinatorHome

    if with_parent:
        end_with_parent()
    loaded = CoordinatorHome.load(home)
    status = go_on(loaded, unfinished_run(loaded.runs, run_name), out=out)
    if status != "finished":
        raise typer.Exit(130 if status == "stopped" else 1)


@campaign.command("recover")
def recover(
    home: Annotated[
        Path | None, typer.Option("--home", help="the coordinator's folder", envvar="FEDAGE_COORDINATOR_HOME")
    ] = None,
    run_folder: Annotated[Path | None, typer.Option("--run", help="one run's folder instead")] = None,
) -> None:
    """Write the record and the report of runs that ended without them, from what is on disk.

    fedage campaign run and fedage coordinator start do it by themselves; this is for when neither runs any more.
    """
    from fedage.common.errors import FedAgeError
    from fedage.server.campaign.recover import KILLED, recover_all, recover_one
    from fedage.server.record.run_folder import run_folders
    from fedage.server.superlink.home import CoordinatorHome

    if run_folder is not None:
        typer.echo(f"report: {recover_one(run_folder)}")
        return
    if home is None:
        raise FedAgeError("give --home, the coordinator's folder, or --run, the folder of a run")
    if not recover_all(run_folders(CoordinatorHome.load(home).runs), reason=KILLED, tell=typer.echo):
        typer.echo("every run has its record, or goes on")


@campaign.command("export")
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="folder of a finished run")],
    home: Home,
    out: Annotated[Path | None, typer.Option(help="the bundle's file; CAMPAIGN-RUN.fedage if not given")] = None,
) -> None:
    """Write the model of a run as one signed file, with what a site needs to predict with it or to validate it."""
    from fedage.common.bundle.card import limits
    from fedage.common.bundle.container import SUFFIX
    from fedage.common.errors import FedAgeError
    from fedage.deploy.machine.atomic import write_atomically
    from fedage.server.campaign.export import export_bundle
    from fedage.server.superlink.home import CoordinatorHome

    content, description = export_bundle(run, key=CoordinatorHome.load(home).signing_key())
    origin = description.origin
    out = out or Path(f"{origin.campaign}-{origin.run}{SUFFIX}")
    try:
        write_atomically(out.absolute(), content)
    except OSError as error:
        raise FedAgeError(f"{out} cannot be written ({error.strerror}); give another file with --out") from None
    for sentence in limits(description):
        typer.echo(f"- {sentence}")
    typer.echo(f"bundle: {out}, SHA-256 {hashlib.sha256(content).hexdigest()}")
