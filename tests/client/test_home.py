"""A site's home: made once, private, and only for the coordinator it was made for."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from fedage.client.site.home import SiteHome, init_site
from fedage.common.errors import FedAgeError
from fedage.deploy.machine.settings import SettingsErrors
from fedage.server.superlink.home import CoordinatorHome, init_home


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> CoordinatorHome:
    return init_home(tmp_path_factory.mktemp("c"), hosts=("localhost",))


def make(root: Path, of: CoordinatorHome, /, **changes: Any) -> SiteHome:
    values: dict[str, Any] = {
        "name": "north",
        "coordinator": "localhost:8443",
        "ca_certificate": of.ca_certificate,
        "coordinator_public_key": of.signing_public_key,
    }
    return init_site(root / "s", **{**values, **changes})


def contents(root: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in root.iterdir() if file.is_file()}


def test_a_home_is_private_and_made_once(tmp_path: Path, coordinator: CoordinatorHome) -> None:
    home = make(tmp_path, coordinator, data=tmp_path / "images", outcomes=Path("o.csv"), threads=2, device="cpu")
    for folder in (home.root, home.logs, home.run, home.flower_home):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for file in (home.node_key, home.root / "site.toml"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = contents(home.root)
    make(tmp_path, coordinator, data=tmp_path / "images", outcomes=Path("o.csv"), threads=2, device="cpu")
    assert contents(home.root) == before
    loaded = SiteHome.load(home.root)
    assert loaded == home
    assert (loaded.config.data, loaded.config.outcomes) == (str(tmp_path / "images"), str(Path.cwd() / "o.csv"))
    assert (loaded.config.threads, loaded.config.device) == (2, "cpu")


def test_the_node_key_is_what_flower_asks_for(tmp_path: Path, coordinator: CoordinatorHome) -> None:
    home = make(tmp_path, coordinator)
    private = load_ssh_private_key(home.node_key.read_bytes(), None)
    public = load_ssh_public_key(home.node_public_key.read_bytes())
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert private.curve.name == "secp384r1"
    assert private.public_key().public_numbers() == public.public_numbers()
    home.node_public_key.unlink()
    make(tmp_path, coordinator)
    assert load_ssh_public_key(home.node_public_key.read_bytes()) == public


def test_the_pinned_key_is_the_coordinators(tmp_path: Path, coordinator: CoordinatorHome) -> None:
    home = make(tmp_path, coordinator)
    home.coordinator_key().verify(coordinator.signing_key().sign(b"request"), b"request")


def test_a_home_is_not_turned_over_to_another_coordinator(tmp_path: Path, coordinator: CoordinatorHome) -> None:
    home = make(tmp_path, coordinator)
    before = contents(home.root)
    other = init_home(tmp_path / "other", hosts=("localhost",))
    for change in (
        {"ca_certificate": other.ca_certificate},
        {"coordinator_public_key": other.signing_public_key},
        {"coordinator": "elsewhere:8443"},
        {"name": "south"},
    ):
        with pytest.raises(FedAgeError, match=r"nothing was changed|says something else"):
            make(tmp_path, coordinator, **change)
    assert contents(home.root) == before


def test_a_store_key_is_restored_and_never_replaced(tmp_path: Path, coordinator: CoordinatorHome) -> None:
    key = tmp_path / "key"
    key.write_text("ab" * 32 + "\n")
    home = make(tmp_path, coordinator, store_key_file=key)
    assert home.store_key.read_text() == "ab" * 32 + "\n"
    assert stat.S_IMODE(home.store_key.stat().st_mode) == 0o600
    key.write_text("cd" * 32)
    with pytest.raises(FedAgeError, match="nothing was changed"):
        make(tmp_path, coordinator, store_key_file=key)
    key.write_text("not a key")
    with pytest.raises(FedAgeError, match="64 hexadecimal digits") as caught:
        make(tmp_path, coordinator, store_key_file=key)
    assert "not a key" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "North Hospital"}, "lower-case letters"),
        ({"coordinator": "localhost"}, "must be host:port"),
        ({"coordinator": "localhost:0"}, "must be host:port"),
        ({"coordinator": "localhost:70000"}, "must be host:port"),
        ({"coordinator": "https://localhost:1"}, "must be host:port"),
        ({"threads": 0}, "threads = 0: must be ≥ 1"),
        ({"device": "tpu"}, 'one of "auto", "cpu", "cuda"'),
        ({"ca_certificate": Path("/none")}, "cannot be read"),
        ({"ca_certificate": Path(__file__)}, "no certificate in PEM form"),
        ({"coordinator_public_key": Path(__file__)}, "no Ed25519 public key"),
    ],
)
def test_what_is_wrong_is_said_and_no_home_made(
    tmp_path: Path, coordinator: CoordinatorHome, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(FedAgeError, match=words):
        make(tmp_path, coordinator, **change)
    assert not (tmp_path / "s").exists()


def test_an_ipv6_coordinator_is_an_address(tmp_path: Path, coordinator: CoordinatorHome) -> None:
    assert make(tmp_path, coordinator, coordinator="[::1]:8443").config.coordinator == "[::1]:8443"


def test_every_mistake_in_the_settings_is_told_at_once(tmp_path: Path, coordinator: CoordinatorHome) -> None:
    home = make(tmp_path, coordinator)
    (home.root / "site.toml").write_text(
        'name = "North"\ncoordinator = 5\ndata = "images"\nthreads = "two"\ncolour = 1\npoll_s = 0\n'
    )
    with pytest.raises(SettingsErrors) as caught:
        SiteHome.load(home.root)
    told = {problem.message.split(" ")[0] for problem in caught.value.problems}
    assert told == {"name", "coordinator", "data", "threads", "colour", "poll_s"}


def test_a_home_that_is_none_or_not_whole_is_said(tmp_path: Path, coordinator: CoordinatorHome) -> None:
    with pytest.raises(FedAgeError, match="fedage site init"):
        SiteHome.load(tmp_path / "none")
    home = make(tmp_path, coordinator)
    home.ca_certificate.unlink()
    with pytest.raises(FedAgeError, match=r"ca\.crt is missing"):
        SiteHome.load(home.root)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"coordinator": "elsewhere:8443"}, r"coordinator \(there 'localhost:8443', given 'elsewhere:8443'\);"),
        (
            {"name": "south", "threads": 2},
            r"name \(there 'north', given 'south'\), threads \(there nothing, given 2\);",
        ),
        ({"device": "cpu"}, r"device \(there 'auto', given 'cpu'\);"),
    ],
)
def test_what_differs_from_the_home_is_named(
    tmp_path: Path, coordinator: CoordinatorHome, change: dict[str, Any], said: str
) -> None:
    make(tmp_path, coordinator)
    with pytest.raises(FedAgeError, match=f"says something else of {said}"):
        make(tmp_path, coordinator, **change)
