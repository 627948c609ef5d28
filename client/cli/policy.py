"""`fedage site policy`: what the site allows, in sentences, and whether its file has mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

policy = typer.Typer(help="The site's policy.toml: read it in sentences, check it, make one.", no_args_is_help=True)

Home = Annotated[Path, typer.Option("--home", help="the site's folder", envvar="FEDAGE_SITE_HOME")]


@policy.command("show")
def show(home: Home) -> None:
    """Say in sentences what the site allows."""
    from fedage.client.consent.policy import POLICY_FILE, load_policy, policy_text
    from fedage.client.site.home import SiteHome

    file = SiteHome.load(home).root / POLICY_FILE
    if not file.exists():
        typer.echo(f"{file} does not exist: these are the defaults (fedage site policy new writes them down)")
    for sentence in policy_text(load_policy(file)):
        typer.echo(f"- {sentence}")


@policy.command("check")
def check(
    file: Annotated[Path | None, typer.Argument(help="a policy file; the site's own if not given")] = None,
    home: Annotated[Path | None, typer.Option("--home", help="the site's folder", envvar="FEDAGE_SITE_HOME")] = None,
) -> None:
    """Check a policy file: every mistake at once, or that it has none."""
    from fedage.client.consent.policy import POLICY_FILE, load_policy
    from fedage.client.site.home import SiteHome
    from fedage.common.errors import FedAgeError

    if file is None:
        if home is None:
            raise FedAgeError("no policy file to check; give its path, or the site's folder with --home")
        file = SiteHome.load(home).root / POLICY_FILE
    if not file.exists():
        raise FedAgeError(f"{file} does not exist; make one with fedage site policy new")
    load_policy(file)
    typer.echo(f"{file}: no mistake")


@policy.command("new")
def new(home: Home) -> None:
    """Write a policy.toml with every key, its default and what it means; one that exists is kept."""
    from fedage.client.consent.policy import POLICY_FILE, write_default
    from fedage.client.site.home import SiteHome
    from fedage.common.errors import FedAgeError

    file = SiteHome.load(home).root / POLICY_FILE
    try:
        write_default(file)
    except FileExistsError:
        raise FedAgeError(f"{file} exists; edit it, or move it away first") from None
    typer.echo(f"{file} written; it takes effect at once")
