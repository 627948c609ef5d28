"""A site's home folder: its settings, its node key, the coordinator it trusts.

======================== =====================================================================
`site.toml`              name, coordinator, folders, resources
`node.key`, `node.pub`   identity towards the SuperLink, EC P-384; the coordinator admits the public half
`ca.crt`                 the coordinator's certificate authority
`coordinator.pub`        the key that signs what this site answers, pinned
`store.key`              hashes identifiers; never leaves the site
`policy.toml`            what the site allows; an edit acts at once
`approved/` and others   campaign files approved, offered and declined, by digest
`audit.db`, `audit.head` the audit log and its last signed head; `audit.key`, `audit.pub` its key
`ledger.db`              ε spent, by data set
`nonces.db`, `replies/`  which requests were seen, and what was answered
`accounts.db`            how often each coordinator has asked what of each data set
`accounts/`              the columns by which sums left
`snapshots.db`           who was in the cohort of each approved campaign, as keyed hashes
`flower/`, `logs/`, `run/` Flower's home, log files, sockets
======================== =====================================================================
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from fedage.client.site.mapping import AbsolutePath, OutcomeColumns, RecipeName, TableSource
from fedage.common.campaign.types import Name
from fedage.common.errors import FedAgeError
from fedage.deploy.machine.atomic import write_atomically
from fedage.deploy.machine.settings import check_settings, read_settings, settings_text

_ADDRESS = re.compile(r"^(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9.-]{1,253}):(\d{1,5})$")

_STORE_KEY = re.compile(rb"^[0-9a-fA-F]{64}\s*$")


def _address(value: str) -> str:
    match = _ADDRESS.fullmatch(value)
    if match is None or not 1 <= int(match[2]) <= 65535:
        raise ValueError("must be host:port, e.g. fedage.example.org:8443")
    return value


class SiteConfig(BaseModel):
    """`site.toml`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    name: Name = Field(description="the site's name in results")
    coordinator: Annotated[str, AfterValidator(_address)] = Field(description="host:port of the coordinator")
    data: AbsolutePath | None = Field(default=None, description="folder with the images, opened read-only")
    layout: Literal["auto", "dicom", "bids"] = Field(
        default="auto", description="what data is; auto: bids where it has a data set's tables or folders, else dicom"
    )
    derivative: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,100}$")] | None = Field(
        default=None,
        description="folder below derivatives/ of a BIDS data set, with volumes that the hospital's tools made, e.g. "
        "without skull",
    )
    recipe: RecipeName | None = Field(
        default=None, description="a public data set that data holds: its tables, columns and links are then known"
    )
    view_if_unknown: Literal["PA", "AP", "FRONTAL"] | None = Field(
        default=None,
        description="view of radiographs (CR, DX) that name none, for a folder known to hold no other; without it "
        "estimators of frontal views leave them out",
    )
    outcomes: AbsolutePath | None = Field(default=None, description="CSV with outcomes, one row a patient")
    threads: int | None = Field(default=None, ge=1, le=1024, description="CPU threads a training may use")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="what a training computes on")
    poll_s: float = Field(default=0.5, ge=0.1, le=60, description="seconds between two looks for work")
    executor: Literal["resident", "per-message"] = Field(
        default="resident",
        description="relay in the SuperNode's own process, or in a fresh one of Flower's for every message; the latter "
        "runs what a coordinator ships as the SuperNode's user, so give that user no access to the agent's files",
    )
    relay_user: str | None = Field(
        default=None,
        min_length=1,
        description="OS user that runs the SuperNode and its relay, without access to this folder or the images",
    )
    max_message_mb: int = Field(default=2048, ge=1, le=65536, description="largest message the agent accepts")
    outcome_columns: OutcomeColumns | None = Field(
        default=None, description="what the columns of outcomes are: id, and columns by campaigns' names"
    )
    table: TableSource | None = Field(
        default=None, description="a table as the site's data: path, id, age, sex, male, missing, columns, use"
    )


@dataclass(frozen=True)
class SiteHome:
    """The files of a site's home."""

    root: Path
    config: SiteConfig

    def state_dir(self, digest: str) -> Path:
        """Where the site keeps what belongs to a campaign (predictions); created on demand."""
        folder = self.root / "state" / digest
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    @classmethod
    def load(cls, root: Path) -> SiteHome:
        """Open a home.

        Raises
        ------
        FedAgeError
            If there is none, or its settings are wrong.
        """
        root = Path(root).absolute()
        mend = f"make it with fedage site init --home {root}"
        home = cls(root, read_settings(root / "site.toml", SiteConfig, mend=mend))
        for file in (home.node_key, home.ca_certificate, home.coordinator_public_key):
            if not file.is_file():
                raise FedAgeError(f"{file} is missing; {mend}, which makes what is missing and changes no key")
        return home

    @property
    def node_key(self) -> Path:
        """The node's private key, OpenSSH form; where a relay has a folder of its own, it is there."""
        moved = self.relay_folder / "node.key"
        return moved if moved.is_file() else self.root / "node.key"

    @property
    def relay_folder(self) -> Path:
        """What a relay with an OS user of its own may read."""
        return self.root.with_name(f"{self.root.name}-relay")

    @property
    def node_public_key(self) -> Path:
        """The public half: send it to the coordinator."""
        return self.root / "node.pub"

    @property
    def ca_certificate(self) -> Path:
        """The coordinator's certificate authority."""
        return self.root / "ca.crt"

    @property
    def coordinator_public_key(self) -> Path:
        """File of the pinned coordinator's key."""
        return self.root / "coordinator.pub"

    @property
    def store_key(self) -> Path:
        """The key identifiers are hashed with."""
        return self.root / "store.key"

    @property
    def flower_home(self) -> Path:
        """`FLWR_HOME` of the SuperNode."""
        return self.root / "flower"

    @property
    def logs(self) -> Path:
        """Log files."""
        return self.root / "logs"

    @property
    def run(self) -> Path:
        """Sockets and locks."""
        return self.root / "run"

    def coordinator_key(self) -> Ed25519PublicKey:
        """The pinned coordinator's key."""
        return read_public_key(self.coordinator_public_key)


def init_site(
    home: Path,
    *,
    name: str,
    coordinator: str,
    ca_certificate: Path,
    coordinator_public_key: Path,
    data: Path | None = None,
    outcomes: Path | None = None,
    store_key_file: Path | None = None,
    threads: int | None = None,
    device: str = "auto",
    recipe: str | None = None,
) -> SiteHome:
    """Make a site's home, or what is missing of it. Keys and settings that exist are kept.

    Parameters
    ----------
    home
        The folder, made with mode 0700.
    name, coordinator, data, outcomes, threads, device, recipe
        See `SiteConfig`.
    ca_certificate, coordinator_public_key
        Files from the coordinator; they are copied.
    store_key_file
        A key to hash identifiers with, from an earlier home of this site; it is copied.

    Raises
    ------
    FedAgeError
        If a setting is wrong, a file is not what it should be, or the home belongs to another site or coordinator.
    """
    root = Path(home).absolute()
    values: dict[str, Any] = {"name": name, "coordinator": coordinator, "device": device}
    values |= {key: str(Path(path).absolute()) for key, path in (("data", data), ("outcomes", outcomes)) if path}
    values |= {"threads": threads} if threads is not None else {}
    values |= {"recipe": recipe} if recipe is not None else {}
    file = root / "site.toml"
    config = check_settings(values, SiteConfig, file=file)
    if file.exists():
        existing = read_settings(file, SiteConfig, mend="make it readable")
        if existing != config:
            raise FedAgeError(
                f"{file} exists and says something else of {_differing(existing, config)}; change it there, or use "
                "another home"
            )
    ca = _read_ca(ca_certificate)
    pinned = _read(coordinator_public_key)
    read_public_key(coordinator_public_key)
    key = _read_store_key(store_key_file) if store_key_file is not None else None

    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    root.chmod(0o700)
    made = SiteHome(root, config)
    for folder in (made.flower_home, made.logs, made.run):
        folder.mkdir(mode=0o700, exist_ok=True)
    _make_node_key(made)
    _pin(made.ca_certificate, ca, mode=0o644)
    _pin(made.coordinator_public_key, pinned, mode=0o644)
    if key is not None:
        _pin(made.store_key, key, mode=0o600)
    if not file.exists():
        _pin(file, settings_text(config, heading="A FedAge site.").encode(), mode=0o600)
    return made


def _differing(existing: SiteConfig, given: SiteConfig) -> str:
    """The keys of two configurations that differ, each with what the file has and what was given."""
    return ", ".join(
        f"{key} (there {_shown(getattr(existing, key))}, given {_shown(getattr(given, key))})"
        for key in SiteConfig.model_fields
        if getattr(existing, key) != getattr(given, key)
    )


def _shown(value: Any) -> str:
    return "nothing" if value is None else repr(value)


def _make_node_key(home: SiteHome) -> None:
    if not home.node_key.exists():
        key = ec.generate_private_key(ec.SECP384R1())
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        _pin(home.node_key, pem, mode=0o600)
    private = serialization.load_ssh_private_key(home.node_key.read_bytes(), password=None)
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise FedAgeError(f"{home.node_key} is not an elliptic-curve key; restore the one fedage made")
    public = private.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    _pin(home.node_public_key, public + b"\n", mode=0o644)


def _read(file: Path) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise FedAgeError(f"{file} cannot be read ({error.strerror}); give the path of an existing file") from None


def _read_ca(file: Path) -> bytes:
    # Imported here: only the making of a home reads a certificate.
    from cryptography import x509

    content = _read(file)
    try:
        x509.load_pem_x509_certificate(content)
    except ValueError:
        raise FedAgeError(f"{file} is no certificate in PEM form; give the coordinator's ca.crt") from None
    return content


def _read_store_key(file: Path) -> bytes:
    content = _read(file)
    if not _STORE_KEY.fullmatch(content):
        raise FedAgeError(f"{file} must hold 64 hexadecimal digits; give the store.key of an earlier home of this site")
    return content


def read_public_key(file: Path) -> Ed25519PublicKey:
    """A coordinator's public key. Raises `FedAgeError` for a file that is none."""
    try:
        key = serialization.load_pem_public_key(_read(file))
    except ValueError:
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise FedAgeError(f"{file} is no Ed25519 public key in PEM form; give the coordinator's coordinator.pub")
    return key


def _pin(file: Path, content: bytes, *, mode: int) -> None:
    """Write a file once; what is there already must be the same."""
    try:
        write_atomically(file, content, mode=mode, replaces=False)
    except FileExistsError:
        if file.read_bytes() != content:
            raise FedAgeError(
                f"{file} exists and is another one; nothing was changed. If the change is meant, move it away first"
            ) from None
