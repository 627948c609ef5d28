"""A coordinator's home folder: its certificate authority, its keys, its settings, its runs.

========================= ===========================================================
`coordinator.toml`        where the SuperLink listens
`ca.crt`, `ca.key`        private authority; sites get the certificate
`server.crt`, `server.key` the SuperLink's certificate
`coordinator.key`, `.pub` Ed25519 key that signs requests; sites pin the public half
`flower/`                 Flower's own home
`state.db`                the SuperLink's database
`admitted.jsonl`          which site each node is; a later line about a node counts
`superexec.secret`        of this start: who knows it may take runs
`heads/`                  each site's public audit key, and the heads of its audit log
`logs/`, `runs/`          what happened
========================= ===========================================================
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from fedage.common.errors import FedAgeError
from fedage.common.protocol.messages import RUN_NAME
from fedage.deploy.machine.atomic import write_atomically
from fedage.deploy.machine.settings import check_settings, read_settings, settings_text
from fedage.server.superlink import pki


def _host(text: str) -> str:
    """A host's name in the form of DNS, or an address.

    Raises
    ------
    ValueError
        Naming the form in which it would be one.
    """
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(text)
        return text
    name = text
    if "/" in text or ":" in text:
        with contextlib.suppress(ValueError):
            name = urllib.parse.urlsplit(text if "//" in text else f"//{text}").hostname or ""
    with contextlib.suppress(UnicodeError):
        name = name.encode("idna").decode("ascii")
    if name == text and _HOST.fullmatch(text):
        return text
    plain = f" (here {name!r})" if _HOST.fullmatch(name) else ""
    raise ValueError(f"must be a host's name or address alone, in ASCII and without https://, path or port{plain}")


_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9_.])?")
Host = Annotated[str, AfterValidator(_host), Field(json_schema_extra={"pattern": r"^[A-Za-z0-9.:_-]{1,253}$"})]
_ALWAYS = ("localhost", "127.0.0.1")


class CoordinatorConfig(BaseModel):
    """`coordinator.toml`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    hosts: tuple[Host, ...] = Field(min_length=1, description="how sites reach it: names and addresses")
    host: Literal["127.0.0.1", "0.0.0.0"] = Field(
        default="127.0.0.1",
        description="address to listen on; 0.0.0.0 is every network. Commands of the coordinator use loopback",
    )
    port: int = Field(default=8443, ge=1, le=65535, description="port of the SuperLink")


@dataclass(frozen=True)
class CoordinatorHome:
    """The files of a coordinator's home."""

    root: Path
    config: CoordinatorConfig

    @classmethod
    def load(cls, root: Path) -> CoordinatorHome:
        """Open a home.

        Raises
        ------
        FedAgeError
            If there is none, or its settings are wrong.
        """
        root = Path(root).absolute()
        mend = f"make it with fedage coordinator init --home {root}"
        if (root / "site.toml").is_file() and not (root / "coordinator.toml").is_file():
            raise FedAgeError(f"{root} is a hospital's folder, not a coordinator's; give the coordinator's with --home")
        home = cls(root, read_settings(root / "coordinator.toml", CoordinatorConfig, mend=mend))
        needed = (home.ca_certificate, home.server_certificate, home.server_key, home.signing_key_file)
        for file in needed:
            if not file.is_file():
                raise FedAgeError(f"{file} is missing; {mend}, which makes what is missing and changes no key")
        return home

    @property
    def ca_certificate(self) -> Path:
        """The authority's certificate: give it to sites."""
        return self.root / "ca.crt"

    @property
    def ca_key(self) -> Path:
        """The authority's private key."""
        return self.root / "ca.key"

    @property
    def server_certificate(self) -> Path:
        """The SuperLink's certificate."""
        return self.root / "server.crt"

    @property
    def server_key(self) -> Path:
        """The SuperLink's private key."""
        return self.root / "server.key"

    @property
    def signing_key_file(self) -> Path:
        """The private key that signs requests."""
        return self.root / "coordinator.key"

    @property
    def signing_public_key(self) -> Path:
        """The public half: give it to sites."""
        return self.root / "coordinator.pub"

    @property
    def flower_home(self) -> Path:
        """`FLWR_HOME` of the SuperLink and of the `flwr` command."""
        return self.root / "flower"

    @property
    def database(self) -> Path:
        """The SuperLink's database."""
        return self.root / "state.db"

    @property
    def heads(self) -> Path:
        """The sites' public audit keys and the heads of their audit logs."""
        return self.root / "heads"

    @property
    def logs(self) -> Path:
        """Log files."""
        return self.root / "logs"

    @property
    def runs(self) -> Path:
        """The runs, by campaign."""
        return self.root / "runs"

    def signing_key(self) -> Ed25519PrivateKey:
        """The key that signs requests."""
        key = serialization.load_pem_private_key(self.signing_key_file.read_bytes(), password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise FedAgeError(f"{self.signing_key_file} is not an Ed25519 key; restore the one fedage made")
        return key

    def admitted(self) -> dict[int, str]:
        """The name each node was admitted under, by Flower's id of it; without sites that were removed."""
        file = self.root / "admitted.jsonl"
        if not file.is_file():
            return {}
        lines = (json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line)
        last = {int(line["node_id"]): line["name"] for line in lines}
        return {node: str(name) for node, name in last.items() if name is not None}

    def admitted_now(self) -> Mapping[int, str]:
        """As `admitted`, and also sites that are admitted while it is looked at."""
        return _Admitted(self)

    def note_admission(self, node_id: int, name: str | None) -> None:
        """Remember which site a node is, or that it is none any more: a node is only believed to be that one."""
        line = json.dumps({"node_id": str(node_id), "name": name}) + "\n"
        # One short appended line is whole or absent, also when several admissions run at once.
        with (self.root / "admitted.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())

    def run_folder(self, campaign: str, run: str) -> Path:
        """Where a run of a campaign is recorded.

        Raises
        ------
        FedAgeError
            If a name could lead out of the folder.
        """
        for name in (campaign, run):
            if not RUN_NAME.fullmatch(name):
                raise FedAgeError(f"{name!r} names no run: allowed are 1 to 63 letters, digits, _ and -; rename it")
        return self.runs / campaign / run


def init_home(
    home: Path, *, hosts: tuple[str, ...] | None = None, port: int | None = None, host: str | None = None
) -> CoordinatorHome:
    """Make a coordinator's home, or what is missing of it. Keys that exist are kept, and settings not given here.

    The server certificate is issued again, on the same key, if it does not cover the hosts or ends soon.

    Parameters
    ----------
    home
        The folder, made with mode 0700.
    hosts
        Names and addresses sites reach the coordinator by, the first of which they are told. `localhost` and 127.0.0.1
        are always covered. If not given, those the home has, else `localhost`.
    port
        Port of the SuperLink. If not given, the one the home has, else 8443.
    host
        Address to listen on. Unless given: loopback if all `hosts` are, else every network.

    Raises
    ------
    FedAgeError
        If a setting is wrong.
    """
    root = Path(home).absolute()
    file = root / "coordinator.toml"
    if (root / "site.toml").is_file():
        raise FedAgeError(f"{root} is a hospital's folder; give the coordinator a folder of its own with --home")
    before = read_settings(file, CoordinatorConfig, mend="make it readable") if file.exists() else None
    config = _settings(before, hosts=hosts, port=port, host=host, file=file)
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    root.chmod(0o700)
    made = CoordinatorHome(root, config)
    # Names it had before stay in the certificate: sites that know it by them still reach it.
    _make_certificates(made, hosts=tuple(dict.fromkeys([*config.hosts, *(before.hosts if before else ()), *_ALWAYS])))
    _make_signing_key(made)
    for folder in (made.flower_home, made.logs):
        folder.mkdir(mode=0o700, exist_ok=True)
    if config != before:
        write_atomically(file, settings_text(config, heading="A FedAge coordinator.").encode())
    return made


def _settings(
    before: CoordinatorConfig | None,
    *,
    hosts: tuple[str, ...] | None,
    port: int | None,
    host: str | None,
    file: Path,
) -> CoordinatorConfig:
    """The settings that a home has, with those that are given in their place."""
    names = tuple(hosts) if hosts else before.hosts if before else ("localhost",)
    kept = before.host if before and (not hosts or before.hosts == names) else None
    listen = host or kept or ("127.0.0.1" if all(_is_loopback(name) for name in names) else "0.0.0.0")
    number = port if port is not None else before.port if before else 8443
    return check_settings({"hosts": names, "host": listen, "port": number}, CoordinatorConfig, file=file)


def _make_certificates(home: CoordinatorHome, *, hosts: tuple[str, ...]) -> None:
    ca_key = _key(home.ca_key)
    if not home.ca_certificate.exists():
        write_atomically(home.ca_certificate, pki.certificate_pem(pki.issue_ca(ca_key)), mode=0o644, replaces=False)
    ca = x509.load_pem_x509_certificate(home.ca_certificate.read_bytes())
    key = _key(home.server_key)
    if home.server_certificate.exists():
        issued = x509.load_pem_x509_certificate(home.server_certificate.read_bytes())
        if pki.still_good(issued, hosts=hosts):
            return
        home.server_certificate.unlink()
    issued = pki.issue_server(key, hosts=hosts, ca=ca, ca_key=ca_key)
    write_atomically(home.server_certificate, pki.certificate_pem(issued), mode=0o644, replaces=False)


def _make_signing_key(home: CoordinatorHome) -> None:
    if not home.signing_key_file.exists():
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_atomically(home.signing_key_file, pem, mode=0o600, replaces=False)
    if not home.signing_public_key.exists():
        public: Ed25519PublicKey = home.signing_key().public_key()
        pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        write_atomically(home.signing_public_key, pem, mode=0o644, replaces=False)


def _key(file: Path) -> ec.EllipticCurvePrivateKey:
    """The key in a file, made if there is none."""
    if not file.exists():
        write_atomically(file, pki.key_pem(pki.new_key()), mode=0o600, replaces=False)
    key = serialization.load_pem_private_key(file.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise FedAgeError(f"{file} is not an elliptic-curve key; restore the one fedage made")
    return key


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Admitted(Mapping[int, str]):
    """The admissions of a home, read again when their file has grown."""

    def __init__(self, home: CoordinatorHome) -> None:
        self._home, self._size, self._known = home, -1, dict[int, str]()

    def _now(self) -> dict[int, str]:
        file = self._home.root / "admitted.jsonl"
        size = file.stat().st_size if file.is_file() else 0
        if size != self._size:
            self._known, self._size = self._home.admitted(), size
        return self._known

    def __getitem__(self, node: int) -> str:
        return self._now()[node]

    def __iter__(self) -> Iterator[int]:
        return iter(dict(self._now()))

    def __len__(self) -> int:
        return len(self._now())
