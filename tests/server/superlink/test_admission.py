"""Admitting, listing, renaming and removing sites, and every way to give the wrong key, name or folder."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from typer.testing import CliRunner

from fedage.client.site.home import SiteHome, init_site
from fedage.common.errors import FedAgeError
from fedage.server.cli.main import campaign as campaign_commands
from fedage.server.cli.main import coordinator as commands
from fedage.server.superlink.admission import (
    admitted_sites,
    node_key,
    register_node,
    remove_site,
    rename_site,
)
from fedage.server.superlink.home import CoordinatorHome, init_home
from fedage.server.superlink.superlink import SuperLink

pytestmark = [pytest.mark.processes, pytest.mark.timeout(200)]

PUBLIC, OPENSSH = serialization.Encoding.PEM, serialization.Encoding.OpenSSH
FORMAT = serialization.PublicFormat


def ssh(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(OPENSSH, FORMAT.OpenSSH)


def private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(PUBLIC, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())


WRONG: dict[str, tuple[Callable[[], bytes], str]] = {
    "an RSA key": (lambda: ssh(rsa.generate_private_key(65537, 2048)), "another kind, RSA.*give node.pub"),
    "an Ed25519 key": (lambda: ssh(ed25519.Ed25519PrivateKey.generate()), "perhaps a coordinator's signing key"),
    "a private key": (lambda: private(ec.generate_private_key(ec.SECP384R1())), "is a private key, which must never"),
    "an odd curve": (
        lambda: ec.generate_private_key(ec.SECP256K1()).public_key().public_bytes(PUBLIC, FORMAT.SubjectPublicKeyInfo),
        "on the curve secp256k1",
    ),
    "a letter": (lambda: b"Dear coordinator, please admit us.\n", "no public key"),
    "nothing": (lambda: b"", "no public key"),
    "a cut key": (lambda: ssh(ec.generate_private_key(ec.SECP384R1()))[:60], "no public key"),
    "bytes": (lambda: os.urandom(500), "no public key"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_file_that_is_no_node_key_is_called_what_it_is(what: str, tmp_path: Path) -> None:
    make, words = WRONG[what]
    (tmp_path / "given.pub").write_bytes(make())
    with pytest.raises(FedAgeError, match=words):
        node_key(tmp_path / "given.pub")


def test_a_folder_a_missing_file_and_a_certificate_are_too(tmp_path: Path) -> None:
    with pytest.raises(FedAgeError, match="cannot be read"):
        node_key(tmp_path)
    with pytest.raises(FedAgeError, match=r"is not there; give node.pub"):
        node_key(tmp_path / "none.pub")
    home = init_home(tmp_path / "c")
    with pytest.raises(FedAgeError, match="is a certificate"):
        node_key(home.ca_certificate)
    with pytest.raises(FedAgeError, match="signing key"):
        node_key(home.signing_public_key)


def told(*words: object, fails: bool = False) -> str:
    done = CliRunner().invoke(commands, [str(word) for word in words])
    assert (done.exit_code != 0) == fails, done.output
    return str(done.exception) if fails else done.output


def test_a_coordinator_that_does_not_run_is_what_is_said(tmp_path: Path) -> None:
    home = init_home(tmp_path / "c")
    site = a_site(tmp_path / "north", home, "north")
    with pytest.raises(FedAgeError, match="has never been started; start it with fedage coordinator start"):
        register_node(home, site.node_public_key, "north")
    (tmp_path / "campaign.toml").write_text(
        '[campaign]\nname = "x"\npurpose = "Nothing of importance"\nseed = 1\n[survival]\nmodels = []\n'
    )
    with SuperLink(home, port=0):
        pass
    with pytest.raises(FedAgeError, match="is not running; start it with"):
        register_node(home, site.node_public_key, "north")
    assert admitted_sites(home) == []
    assert "is not running" in told("sites", "--home", home.root)
    assert "hospital's folder" in told("sites", "--home", site.root, fails=True)
    assert "make it with fedage coordinator init" in told("sites", "--home", tmp_path / "none", fails=True)
    campaign = tmp_path / "c.toml"
    assert CliRunner().invoke(campaign_commands, ["new", "--estimator", "table-ridge", "--out", str(campaign)])
    ran = CliRunner().invoke(campaign_commands, ["run", str(campaign), "--home", str(home.root)])
    assert isinstance(ran.exception, FedAgeError)
    assert "is not running; start it with" in str(ran.exception)
    assert not home.runs.exists() or not list(home.runs.glob("*/*"))


def a_site(folder: Path, home: CoordinatorHome, name: str) -> SiteHome:
    return init_site(
        folder,
        name=name,
        coordinator="localhost:8443",
        ca_certificate=home.ca_certificate,
        coordinator_public_key=home.signing_public_key,
    )


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoordinatorHome]:
    home = init_home(tmp_path_factory.mktemp("c"))
    with SuperLink(home, port=0):
        yield home


def names(home: CoordinatorHome) -> list[tuple[str, str]]:
    return [(site.name, site.status) for site in admitted_sites(home)]


def test_no_site_locks_another_one_out(running: CoordinatorHome, tmp_path: Path) -> None:
    north, valley = (a_site(tmp_path / name, running, name) for name in ("north", "valley"))
    first = register_node(running, north.node_public_key, "north")
    assert register_node(running, north.node_public_key, "north") == first
    with pytest.raises(FedAgeError, match=r"'north' is admitted already, with another key.*remove"):
        register_node(running, valley.node_public_key, "north")
    with pytest.raises(FedAgeError, match=r"is admitted already, as 'north'.*rename"):
        register_node(running, north.node_public_key, "valley")
    assert names(running) == [("north", "never connected")]
    register_node(running, valley.node_public_key, "valley")
    assert names(running) == [("north", "never connected"), ("valley", "never connected")]
    with pytest.raises(FedAgeError, match="another admitted site"):
        rename_site(running, "north", "valley")

    (running.heads).mkdir(exist_ok=True)
    (running.heads / "north.jsonl").write_text("")
    rename_site(running, "north", "harbour")
    assert running.admitted()[first] == "harbour"
    assert (running.heads / "harbour.jsonl").exists()
    (running.heads / "south.jsonl").write_text("")
    with pytest.raises(FedAgeError, match="begin-anew"):
        rename_site(running, "harbour", "south")
    assert running.admitted()[first] == "harbour"

    remove_site(running, "harbour")
    assert names(running) == [("valley", "never connected")]
    with pytest.raises(FedAgeError, match="no site is admitted as 'harbour'; admitted are valley"):
        remove_site(running, "harbour")
    again = register_node(running, north.node_public_key, "north")
    assert again != first
    assert names(running) == [("north", "never connected"), ("valley", "never connected")]
    remove_site(running, "north")
    assert register_node(running, north.node_public_key, "north") not in (first, again)
    with pytest.raises(FedAgeError, match="no site name"):
        rename_site(running, "north", "North Hospital")
    said = told("sites", "--home", running.root)
    assert "north: never connected, key " in said
    remove_site(running, "north")
    remove_site(running, "valley")


@pytest.mark.parametrize("form", ["the same file", "a copy", "a copy with Windows' line ends", "as PEM"])
def test_the_same_admit_twice_is_no_error(running: CoordinatorHome, tmp_path: Path, form: str) -> None:
    file = a_site(tmp_path / "twin", running, "twin").node_public_key
    assert told("admit", "--home", running.root, "twin", file) == "admitted twin\n"
    before, log = names(running), (running.root / "admitted.jsonl").read_bytes()
    content = file.read_bytes()
    if form == "as PEM":
        content = serialization.load_ssh_public_key(content).public_bytes(PUBLIC, FORMAT.SubjectPublicKeyInfo)
    again = file if form == "the same file" else tmp_path / "again.pub"
    again.write_bytes(content.replace(b"\n", b"\r\n") if "Windows" in form else content)
    for _ in range(2):
        assert "already, with this key; nothing was changed" in told("admit", "--home", running.root, "twin", again)
    assert (names(running), (running.root / "admitted.jsonl").read_bytes()) == (before, log)
    assert told("remove", "--home", running.root, "twin").startswith("removed twin")
    # Removed, it is admitted anew.
    assert told("admit", "--home", running.root, "twin", again) == "admitted twin\n"
    told("remove", "--home", running.root, "twin")


def test_what_a_coordinator_may_get_wrong_is_said_in_one_line_and_changes_nothing(
    running: CoordinatorHome, tmp_path: Path
) -> None:
    for name in ("left", "right"):
        told("admit", "--home", running.root, name, a_site(tmp_path / name, running, name).node_public_key)
    before, third = names(running), a_site(tmp_path / "third", running, "third").node_public_key
    wrong = {
        ("rename", "lefft", "third"): "no site is admitted as 'lefft'; admitted are .*left",
        ("rename", "left", "right"): "'right' is another admitted site; rename or remove that one first",
        ("rename", "left", "Left Hospital"): "'Left Hospital' is no site name: allowed are",
        ("rename", "left", ""): "'' is no site name",
        ("remove", "third"): "no site is admitted as 'third'",
        ("remove", "LEFT"): "no site is admitted as 'LEFT'; admitted are .*left",
        ("admit", "third", tmp_path / "no.pub"): "no.pub is not there; give node.pub, which fedage site init leaves",
        ("admit", "third", tmp_path): "cannot be read",
        ("admit", "third", third.with_name("node.key")): "is a private key, which must never leave its site",
        ("admit", "left", third): "'left' is admitted already, with another key",
        ("admit", "third_one", third): "'third_one' is no site name",
        ("admit", "third", tmp_path / "left" / "node.pub"): "is admitted already, as 'left'",
        ("heads", "third"): "no site is admitted as 'third'",
    }
    for (command, *words), said in wrong.items():
        message = told(command, "--home", running.root, *words, fails=True)
        assert re.search(said, message), message
        assert "\n" not in message
        assert names(running) == before
    assert "nothing was changed" in told("rename", "--home", running.root, "left", "left")
    assert names(running) == before
    for name in ("left", "right"):
        told("remove", "--home", running.root, name)


def test_a_node_that_was_registered_and_not_noted_gets_its_name(running: CoordinatorHome, tmp_path: Path) -> None:
    """The command was killed, or the disk was full, between the two."""
    east = a_site(tmp_path / "east", running, "east")
    node = register_node(running, east.node_public_key, "east")
    file = running.root / "admitted.jsonl"
    file.write_text("".join(f"{line}\n" for line in file.read_text().splitlines() if '"east"' not in line))
    assert ("", "never connected") in names(running)
    assert register_node(running, east.node_public_key, "east") == node
    assert ("east", "never connected") in names(running)


def test_init_again_changes_what_it_is_told_to_and_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    first = told("init", "--home", folder)
    assert "coordinator ready" in first
    key = (folder / "coordinator.key").read_bytes()
    assert "nothing was changed" in told("init", "--home", folder)
    said = told("init", "--home", folder, "--host", "fedage.example.org", "--port", "9443")
    assert "localhost port 8443 is now fedage.example.org port 9443" in said
    assert 'coordinator = "fedage.example.org:9443"' in said
    home = CoordinatorHome.load(folder)
    assert (home.config.hosts, home.config.host, home.config.port) == (("fedage.example.org",), "0.0.0.0", 9443)
    assert (folder / "coordinator.key").read_bytes() == key
    told("init", "--home", folder, "--port", "9444")
    home = CoordinatorHome.load(folder)
    assert (home.config.hosts, home.config.host, home.config.port) == (("fedage.example.org",), "0.0.0.0", 9444)
    assert "port" in told("init", "--home", folder, "--port", "99999", fails=True)
    assert CoordinatorHome.load(folder).config.port == 9444
    site = a_site(tmp_path / "north", home, "north")
    assert "hospital's folder" in told("init", "--home", site.root, fails=True)


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b""])
@pytest.mark.parametrize("form", ["OpenSSH", "PEM"])
def test_a_key_with_a_mark_of_utf_8_is_the_key(tmp_path: Path, form: str, ending: bytes) -> None:
    """Editors of Windows put the mark there when a file is saved again."""
    key = ec.generate_private_key(ec.SECP384R1())
    as_pem = key.public_key().public_bytes(PUBLIC, FORMAT.SubjectPublicKeyInfo)
    text = (ssh(key) if form == "OpenSSH" else as_pem).strip()
    (tmp_path / "plain.pub").write_bytes(text + b"\n")
    (tmp_path / "node.pub").write_bytes(b"\xef\xbb\xbf" + text + ending)

    assert node_key(tmp_path / "node.pub") == node_key(tmp_path / "plain.pub")
