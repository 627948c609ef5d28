"""`fedage site split` is root's only part in a site: what a site's user put there leads it nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fedage.client.node.node_folder import of_relay, prepare
from fedage.client.site.home import SiteHome, init_site
from fedage.common.errors import FedAgeError
from fedage.server.superlink.home import init_home
from tests.client.agent.other_user import OTHER, give_to_owner, needs_another_user, open_folder


@pytest.fixture
def root() -> Iterator[Path]:
    needs_another_user()
    with open_folder() as made:
        yield made


def home_in(root: Path) -> SiteHome:
    coordinator = init_home(root / "c", hosts=("localhost",))
    home = init_site(
        root / "s",
        name="north",
        coordinator="localhost:9",
        ca_certificate=coordinator.ca_certificate,
        coordinator_public_key=coordinator.signing_public_key,
    )
    file = home.root / "site.toml"
    file.write_text(file.read_text().replace("# relay_user =", f'relay_user = "{OTHER}"'))
    return SiteHome.load(home.root)


def test_a_home_of_root_is_refused(root: Path) -> None:
    home = home_in(root)
    with pytest.raises(FedAgeError, match=r"is root's, and the agent.*chown -R USER"):
        prepare(home)
    assert home.node_key.parent == home.root


@pytest.mark.parametrize("name", ["ca.crt", "node.key"])
def test_a_link_to_what_only_root_may_read_is_not_followed(root: Path, name: str) -> None:
    home = home_in(root)
    secret = root / "secret"
    secret.write_text("only root knows")
    secret.chmod(0o600)
    (home.root / name).unlink()
    (home.root / name).symlink_to(secret)
    give_to_owner(home.root)
    with pytest.raises(FedAgeError, match=f"{name} is not a regular file"):
        prepare(home)
    copies = [path for path in root.rglob("*") if path.is_file() and path.read_bytes() == secret.read_bytes()]
    assert set(copies) == {secret, home.root / name}


@pytest.mark.parametrize("name", ["relay.toml", "ca.crt", "node.key"])
def test_a_link_is_not_written_through(root: Path, name: str) -> None:
    home = home_in(root)
    victim = root / "victim"
    victim.write_text("as it was")
    home.relay_folder.mkdir()
    (home.relay_folder / f"{name}.partial").symlink_to(victim)
    give_to_owner(home.root, home.relay_folder)
    with suppress(FedAgeError):  # where the other user cannot run this interpreter
        prepare(home)
    assert victim.read_text() == "as it was"
    assert (home.relay_folder / name).is_file()
    assert not (home.relay_folder / name).is_symlink()


def test_the_node_is_the_relays_users_to_run(root: Path) -> None:
    home = home_in(root)
    give_to_owner(home.root)
    with suppress(FedAgeError):
        prepare(home)
    with pytest.raises(FedAgeError, match=f"run fedage site node as {OTHER}"):
        of_relay(home.relay_folder)
