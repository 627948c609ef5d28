"""A coordinator's home: made once, kept, and its certificates good for what they are for."""

from __future__ import annotations

import re
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from fedage.common.errors import FedAgeError
from fedage.deploy.machine.settings import SettingsErrors
from fedage.server.superlink import pki
from fedage.server.superlink.home import CoordinatorHome, init_home


def contents(root: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in root.iterdir() if file.is_file()}


def names(home: CoordinatorHome) -> set[str]:
    certificate = x509.load_pem_x509_certificate(home.server_certificate.read_bytes())
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(name.value) for name in found}


def test_a_home_is_private_and_made_once(tmp_path: Path) -> None:
    home = init_home(tmp_path / "c", hosts=("fedage.example.org",), port=9000)
    assert stat.S_IMODE(home.root.stat().st_mode) == 0o700
    for secret in (home.ca_key, home.server_key, home.signing_key_file):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    before = contents(home.root)
    for again in (init_home(home.root), init_home(home.root, hosts=("fedage.example.org",), port=9000)):
        assert contents(home.root) == before
        assert again.config == home.config == CoordinatorHome.load(home.root).config
    assert (home.config.hosts, home.config.host, home.config.port) == (("fedage.example.org",), "0.0.0.0", 9000)


def test_loopback_hosts_listen_on_loopback(tmp_path: Path) -> None:
    assert init_home(tmp_path / "a", hosts=("localhost", "127.0.0.1", "::1")).config.host == "127.0.0.1"
    assert init_home(tmp_path / "b", hosts=("localhost",), host="0.0.0.0").config.host == "0.0.0.0"


def test_what_is_missing_is_made_and_no_key_changes(tmp_path: Path) -> None:
    home = init_home(tmp_path / "c", hosts=("localhost",))
    before = contents(home.root)
    home.server_certificate.unlink()
    home.signing_public_key.unlink()
    with pytest.raises(FedAgeError, match=r"server\.crt is missing.*changes no key"):
        CoordinatorHome.load(home.root)
    init_home(home.root, hosts=("localhost",))
    after = contents(home.root)
    assert {name for name in before if before[name] != after[name]} == {"server.crt"}


def test_more_hosts_mean_a_new_certificate_on_the_same_keys(tmp_path: Path) -> None:
    home = init_home(tmp_path / "c", hosts=("localhost",))
    assert names(home) == {"localhost", "127.0.0.1"}
    before = contents(home.root)
    init_home(home.root, hosts=("fedage.example.org", "10.1.2.3"))
    after = contents(home.root)
    assert names(home) == {"localhost", "127.0.0.1", "fedage.example.org", "10.1.2.3"}
    assert {name for name in before if before[name] != after[name]} == {"server.crt", "coordinator.toml"}


def test_a_certificate_about_to_end_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pki, "SERVER_DAYS", pki.RENEW_DAYS - 1)
    home = init_home(tmp_path / "c", hosts=("localhost",))
    old = home.server_certificate.read_bytes()
    monkeypatch.undo()
    init_home(home.root, hosts=("localhost",))
    renewed = x509.load_pem_x509_certificate(home.server_certificate.read_bytes())
    assert home.server_certificate.read_bytes() != old
    assert renewed.not_valid_after_utc > datetime.now(UTC) + timedelta(days=pki.RENEW_DAYS)


def test_the_certificate_verifies_for_its_names_only_and_signs_nothing(tmp_path: Path) -> None:
    home = init_home(tmp_path / "c", hosts=("fedage.example.org",))
    ca = x509.load_pem_x509_certificate(home.ca_certificate.read_bytes())
    server = x509.load_pem_x509_certificate(home.server_certificate.read_bytes())
    policy = PolicyBuilder().store(Store([ca]))
    assert policy.build_server_verifier(x509.DNSName("fedage.example.org")).verify(server, []) == [server, ca]
    with pytest.raises(VerificationError):
        policy.build_server_verifier(x509.DNSName("other.example.org")).verify(server, [])
    other = init_home(tmp_path / "d", hosts=("fedage.example.org",))
    other_ca = x509.load_pem_x509_certificate(other.ca_certificate.read_bytes())
    with pytest.raises(VerificationError):
        PolicyBuilder().store(Store([other_ca])).build_server_verifier(x509.DNSName("fedage.example.org")).verify(
            server, []
        )
    assert not server.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_the_two_halves_of_the_signing_key_belong_together(tmp_path: Path) -> None:
    home = init_home(tmp_path / "c", hosts=("localhost",))
    public = serialization.load_pem_public_key(home.signing_public_key.read_bytes())
    assert isinstance(public, Ed25519PublicKey)
    public.verify(home.signing_key().sign(b"request"), b"request")


def test_every_mistake_in_the_settings_is_told_at_once(tmp_path: Path) -> None:
    home = init_home(tmp_path / "c", hosts=("localhost",))
    (home.root / "coordinator.toml").write_text('hosts = []\nport = 70000\nprot = 1\nhost = "a b"\n')
    with pytest.raises(SettingsErrors) as caught:
        CoordinatorHome.load(home.root)
    text = str(caught.value)
    assert len(caught.value.problems) == 4
    assert "port = 70000: must be ≤ 65535" in text
    assert "did you mean port?" in text
    with pytest.raises(FedAgeError, match="fedage coordinator init"):
        CoordinatorHome.load(tmp_path / "none")


@pytest.mark.parametrize("port", [0, 65536])
def test_wrong_settings_make_no_home(tmp_path: Path, port: int) -> None:
    with pytest.raises(SettingsErrors, match="port"):
        init_home(tmp_path / "c", hosts=("localhost",), port=port)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("name", ["..", "", "a/b", ".hidden", "x" * 64, "a\n"])
def test_a_run_stays_in_its_folder(tmp_path: Path, name: str) -> None:
    home = init_home(tmp_path / "c", hosts=("localhost",))
    assert home.run_folder("study", "20260101-120000") == home.root / "runs" / "study" / "20260101-120000"
    for pair in ((name, "run"), ("study", name)):
        with pytest.raises(FedAgeError, match="names no run"):
            home.run_folder(*pair)


@pytest.mark.parametrize(
    ("host", "form"),
    [
        ("münchen.de", "xn--mnchen-3ya.de"),
        ("https://age.example.org/", "age.example.org"),
        ("age.example.org:8443", "age.example.org"),
        ("http://10.0.0.7:80/x", "10.0.0.7"),
        ("[::1]:8443", ""),
        ("two words", ""),
        ("-a.de", ""),
    ],
)
def test_a_host_that_is_none_is_one_error_with_its_right_form(tmp_path: Path, host: str, form: str) -> None:
    """A second error said that no host was given, and the first showed a regular expression."""
    with pytest.raises(SettingsErrors) as caught:
        init_home(tmp_path / "c", hosts=(host,))

    assert len(caught.value.problems) == 1
    said = str(caught.value)
    assert "[A-Za-z" not in said
    assert "at least 1 item" not in said
    assert (repr(form) if form else "name or address alone") in said
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("host", ["age.example.org", "10.0.0.7", "fe80::1", "age_server", "xn--mnchen-3ya.de", "a.b."])
def test_names_and_addresses_are_hosts(tmp_path: Path, host: str) -> None:
    assert init_home(tmp_path / "c", hosts=(host,)).config.hosts == (host,)


@pytest.mark.parametrize(
    ("host", "plain"),
    [
        ("https://example.org:8443/x", "example.org"),
        ("h:8443", "h"),
        ("münchen.example", "xn--mnchen-3ya.example"),
        ("age.example/a", "age.example"),
        ("Klinik Süd", ""),
    ],
)
def test_a_host_with_more_than_its_name_is_refused_with_its_name(tmp_path: Path, host: str, plain: str) -> None:
    says = "must be a host's name or address alone, in ASCII and without https://, path or port"
    with pytest.raises(FedAgeError, match=re.escape(f"{says} (here {plain!r})" if plain else f"{says};")):
        init_home(tmp_path / "c", hosts=(host,))
