"""What the SuperNode and its relay need on disk: in the site's home, or in a folder of their own for another user.

With `relay_user` in `site.toml` they run as that user, who can read nothing of the home, and the agent as the site's
user, who owns it; neither is root. Their folder lies beside the home, is named like it with `-relay`, and belongs
to the site's user; the relay's user owns only what is marked:

===================== ==============================================================================
`relay.toml`, `ca.crt` settings for `fedage site node`; the coordinator's certificate authority
`node.key`            the relay's, and no other's: identity towards the SuperLink, moved here from the home
`flower/`, `run/`, `logs/` the relay's: Flower's home, its secret and state, log files
`agent/agent.sock`    the agent's socket; the relay's group may connect, the folder hands the group on
===================== ==============================================================================
"""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from fedage.client.site.home import SiteHome
from fedage.common.errors import FedAgeError
from fedage.deploy.machine.atomic import write_atomically
from fedage.deploy.machine.settings import read_settings, settings_text

MAX_SOCKET_PATH = 100
_KEPT = ("PATH", "LANG", "TZ", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "PYTHONPATH", "PYTHONUNBUFFERED")
_KEPT_PREFIXES = ("FLWR_", "FEDAGE_", "LC_", "OMP_")


class NodeConfig(BaseModel):
    """`relay.toml`: what of `site.toml` the relay's side needs."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = Field(description="the site's name in results")
    coordinator: str = Field(description="host:port of the coordinator")
    poll_s: float = Field(description="seconds between two looks for work")
    executor: str = Field(description="resident or per-message, see site.toml")


@dataclass(frozen=True)
class NodeFolder:
    """Where the SuperNode finds its files; `apart` if the folder is the relay's own."""

    folder: Path
    config: NodeConfig
    node_key: Path
    socket_path: Path
    logs: Path
    apart: bool = False

    @property
    def ca_certificate(self) -> Path:
        """The coordinator's certificate authority."""
        return self.folder / "ca.crt"

    @property
    def flower_home(self) -> Path:
        """`FLWR_HOME` of the SuperNode."""
        return self.folder / "flower"

    @property
    def run(self) -> Path:
        """The secret of the SuperNode's runtime interface, and the node's state."""
        return self.folder / "run"


def in_home(home: SiteHome, *, socket_path: Path) -> NodeFolder:
    """The node of a site that runs as one user."""
    return NodeFolder(home.root, _config(home), home.node_key, socket_path, home.logs)


def of_relay(folder: Path) -> NodeFolder:
    """The node of a folder made by `prepare`, for the relay's user.

    Raises
    ------
    FedAgeError
        If there is none, or it is not this user's.
    """
    folder = Path(folder).absolute()
    mend = "make it with fedage site split, as root, and give its path"
    config = read_settings(folder / "relay.toml", NodeConfig, mend=mend)
    key = folder / "node.key"
    if (theirs := key.stat().st_uid) != os.geteuid():
        raise FedAgeError(f"{key} is another user's; run fedage site node as {_name(theirs)}")
    return NodeFolder(folder, config, key, socket_of(folder), folder / "logs", apart=True)


def owner_of(home: SiteHome) -> str:
    """The site's user: whose the home is.

    Raises
    ------
    FedAgeError
        If that is root.
    """
    owner = home.root.stat().st_uid
    if owner == 0:
        raise FedAgeError(
            f"{home.root} is root's, and the agent, which opens every image, would be too: make a user for the site "
            f"who may read the images, without login, and run chown -R USER {home.root}"
        )
    return _name(owner)


def socket_of(folder: Path) -> Path:
    """Where the agent listens for a relay with a folder of its own."""
    return folder / "agent" / "agent.sock"


def prepare(home: SiteHome) -> NodeFolder:
    """Make the relay's folder as `site.toml` wants it; what is right already stays. Needs root.

    Raises
    ------
    FedAgeError
        If this is not root, the home is root's, there is no such user, or that user cannot run this interpreter.
    """
    user = home.config.relay_user
    if user is None:
        raise FedAgeError(f'{home.root}/site.toml names no relay_user; add e.g. relay_user = "fedage-relay"')
    if os.geteuid() != 0:
        raise FedAgeError(
            f"relay_user = {user!r} needs root once: run fedage site split as root, then fedage site agent as the "
            "site's user and fedage site node as the relay's"
        )
    owner_of(home)
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise FedAgeError(f"relay_user = {user!r} is no user of this machine; make it, without login") from None
    owner = home.root.stat()
    if entry.pw_uid in (0, owner.st_uid):
        raise FedAgeError(f"relay_user = {user!r} must be neither root nor the owner of {home.root}; make another user")
    folder = home.relay_folder
    if len(str(socket_of(folder)).encode()) > MAX_SOCKET_PATH:
        raise FedAgeError(f"{socket_of(folder)} is too long for a socket; choose a site home with a shorter path")
    _own(folder, uid=owner.st_uid, gid=entry.pw_gid, mode=0o711)
    # What is made in it belongs to the relay's group without the agent being a member.
    _own(folder / "agent", uid=owner.st_uid, gid=entry.pw_gid, mode=0o2750)
    for name in ("flower", "run", "logs"):
        _own(folder / name, uid=entry.pw_uid, gid=entry.pw_gid, mode=0o700)
    settings = settings_text(_config(home), heading="The relay's side of a FedAge site; made from site.toml.")
    write_atomically(folder / "relay.toml", settings.encode(), mode=0o644)
    write_atomically(folder / "ca.crt", _read_own(home.ca_certificate, uid=owner.st_uid), mode=0o644)
    key = folder / "node.key"
    if not key.exists():
        _move_key(home.node_key, key, uid=entry.pw_uid, gid=entry.pw_gid, owner=owner.st_uid)
    side = NodeFolder(folder, _config(home), key, socket_of(folder), folder / "logs", apart=True)
    _check_reach(side, entry)
    return side


def relay_environment(environment: dict[str, str], *, folder: Path) -> dict[str, str]:
    """What of an environment another user gets: nothing that may hold a secret of the site's user."""
    allowed = {name: value for name, value in environment.items() if name in _KEPT or name.startswith(_KEPT_PREFIXES)}
    return {**allowed, "HOME": str(folder / "flower")}


def _config(home: SiteHome) -> NodeConfig:
    config = home.config
    return NodeConfig(name=config.name, coordinator=config.coordinator, poll_s=config.poll_s, executor=config.executor)


def _own(folder: Path, *, uid: int, gid: int, mode: int) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    # Never through a link that somebody else may have put there.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        os.fchown(descriptor, uid, gid)
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def _read_own(file: Path, *, uid: int) -> bytes:
    """A file of the site's user, read as root: never through a link to what only root may read."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        raise FedAgeError(f"{file} is not a regular file; put the file itself there, not a link") from None
    with os.fdopen(descriptor, "rb") as stream:
        if os.fstat(descriptor).st_uid != uid:
            raise FedAgeError(f"{file} is not the site's user's ({_name(uid)}); chown it")
        return stream.read()


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _move_key(old: Path, new: Path, *, uid: int, gid: int, owner: int) -> None:
    write_atomically(new, _read_own(old, uid=owner), owner=(uid, gid))
    old.unlink()


def _check_reach(side: NodeFolder, entry: pwd.struct_passwd) -> None:
    """Say it here if the relay's user cannot run this interpreter or reach its folder, and not in a log."""
    code = "import sys, fedage.common.errors; open(sys.argv[1]).close()"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, str(side.node_key)],
            user=entry.pw_uid,
            group=entry.pw_gid,
            extra_groups=[],
            cwd=side.folder,
            env=relay_environment(dict(os.environ), folder=side.folder),
            capture_output=True,
            check=False,
        )
    except PermissionError:
        done = None
    if done is None or done.returncode:
        raise FedAgeError(
            f"relay_user = {entry.pw_name!r} cannot run {sys.executable} with fedage, or cannot reach {side.folder}: "
            "install them where every user may read, and let others pass (x) through the folders above"
        )
