"""The `fedage` command line: four groups, each command importing what it needs when it is called."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from typer.main import get_command

from fedage.client.cli.main import site
from fedage.client.cli.predict import predict
from fedage.deploy.demo.cli import demo
from fedage.server.cli.main import campaign, coordinator
from fedage.server.compare.cli import compare

app = typer.Typer(
    name="fedage",
    help="Federated age estimation from medical images: hospitals train together, no image leaves any of them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(demo)
app.command()(compare)
app.command()(predict)
_GROUPS = {"coordinator": coordinator, "campaign": campaign, "site": site}
for _name, _group in _GROUPS.items():
    app.add_typer(_group, name=_name)


@app.command()
def simulate(
    campaign_file: Annotated[Path, typer.Argument(metavar="CAMPAIGN", help="the campaign file")],
    data: Annotated[Path, typer.Option(help="one table with a site column, or a folder with one sub-folder a site")],
    site_column: Annotated[str | None, typer.Option(help="column of the table that names the site")] = None,
    out: Annotated[Path | None, typer.Option(help="empty folder for the record; runs/NAME/TIME if not given")] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="the bundle that the file validates, where it names one in estimator.bundle")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="file of the weights that the campaign begins with, if it names some")
    ] = None,
    variants: Annotated[
        Path | None,
        typer.Option(
            help="file of variants of the campaign's estimator and training: each is simulated too, on the same folds, "
            "and laid beside the campaign"
        ),
    ] = None,
    check_pooled: Annotated[
        bool,
        typer.Option(
            "--check-pooled",
            help="fit the same models on one table of all patients, with lifelines and numpy, and record how far apart",
        ),
    ] = False,
) -> None:
    """Try a campaign on this machine: the same server and client code, one virtual node a site, no set-up."""
    from rich.console import Console

    from fedage.deploy.simulate import simulate as run

    console = Console(highlight=False, soft_wrap=True, markup=False)
    if variants is not None:
        _simulate_variants(
            campaign_file,
            variants,
            data=data,
            site_column=site_column,
            out=out,
            unusable={"--bundle": bundle, "--weights": weights, "--check-pooled": check_pooled},
        )
        return
    found = run(
        campaign_file,
        data=data,
        site_column=site_column,
        out=out,
        bundle=bundle,
        check_pooled=check_pooled,
        weights=weights,
        console=console,
    )
    if found.run.status != "finished":
        raise typer.Exit(1)


def _simulate_variants(
    campaign_file: Path,
    variants: Path,
    *,
    data: Path,
    site_column: str | None,
    out: Path | None,
    unusable: Mapping[str, object],
) -> None:
    from rich.console import Console

    from fedage.common.errors import FedAgeError
    from fedage.deploy.variants import simulate_variants
    from fedage.server.compare.cli import WIDTH_IN_A_PIPE

    if given := [name for name, value in unusable.items() if value]:
        raise FedAgeError(f"--variants does not go with {', '.join(given)}; leave one of them out")
    if out is None:
        raise FedAgeError("--variants needs --out, an empty folder in which each variant has one of its own")
    width = None if sys.stdout.isatty() else WIDTH_IN_A_PIPE
    console = Console(highlight=False, soft_wrap=True, markup=False, width=width)
    if not simulate_variants(campaign_file, variants, data=data, site_column=site_column, out=out, console=console):
        raise typer.Exit(1)


@app.command()
def version() -> None:
    """Print the version."""
    from fedage.common.version import __version__

    typer.echo(__version__)


def main() -> None:
    """Entry point: an expected error is one line on stderr and exit status 2, never a traceback."""
    import gc

    import click

    from fedage.common.errors import FedAgeError

    # A command makes its modules and models first and ends soon after; looking for garbage among them meanwhile takes a
    # tenth of its time.
    gc.set_threshold(50_000)
    try:
        # Without its standalone mode Typer returns the status that a command exits with.
        status = get_command(_with_group_of(sys.argv[1:]))(standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except FedAgeError as error:
        sys.stderr.write(f"fedage: {error}\n")
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.stderr.write("fedage: stopped\n")
        sys.exit(130)


def _with_group_of(words: list[str]) -> typer.Typer:
    """The command line with the group of commands that is called alone: Typer reads the signature of every command."""
    if not words or words[0] not in _GROUPS:
        return app
    called = typer.Typer(name="fedage", add_completion=False)
    called.add_typer(_GROUPS[words[0]], name=words[0])
    return called
