"""Which sites a coordinator admits: their names, their node keys, and whether they are online.

Flower tells nodes apart by their keys, people tell sites apart by their names. `admitted.jsonl` in the coordinator's
home joins the two; of several lines about a node the last counts, and one without a name says that it was removed.
"""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from fedage.common.errors import FedAgeError
from fedage.server.record.heads import Heads
from fedage.server.superlink.control import SITE_NAME, control, running
from fedage.server.superlink.home import CoordinatorHome

if TYPE_CHECKING:
    from flwr.proto.node_pb2 import NodeInfo

_KEY_BYTES = 20_000
_MADE_BY = "give node.pub, which fedage site init leaves in the site's folder"


@dataclass(frozen=True)
class AdmittedSite:
    """A site as the coordinator knows it.

    Parameters
    ----------
    name
        Empty for a node that the SuperLink knows and nobody has named.
    node_id
        Flower's.
    status
        `online`, `offline`, `never connected`, or `unknown` while the SuperLink does not run.
    since_utc
        Since when it is online or offline; empty if not known.
    key
        The first half of the SHA-256 of its node key, in hexadecimal; empty if not known.
    """

    name: str
    node_id: int
    status: str
    since_utc: str = ""
    key: str = ""


def register_node(home: CoordinatorHome, public_key: Path, name: str) -> int:
    """Admit a site by its node key and return the node's id. It may connect at once.

    The same key under the same name again changes nothing.

    Raises
    ------
    FedAgeError
        If the name is no site name or is another site's, the file holds no node key, the key is another site's, or the
        coordinator is not running.
    """
    _check_name(name)
    key = node_key(public_key)
    with _one_at_a_time(home):
        admitted = home.admitted()
        nodes = _nodes(home)
        known = next((node for node in nodes.values() if node.public_key == key), None)
        holder = next((node for node, held in admitted.items() if held == name), None)
        if known is not None and known.node_id in admitted:
            if (called := admitted[known.node_id]) == name:
                return int(known.node_id)
            raise FedAgeError(
                f"the key in {public_key} is admitted already, as {called!r}; "
                f"if that was a mistake: fedage coordinator rename --home {home.root} {called} {name}"
            )
        if holder is not None:
            raise FedAgeError(
                f"{name!r} is admitted already, with another key. If this is another hospital, give it another name; "
                f"if {name} has a new key, first: fedage coordinator remove --home {home.root} {name}"
            )
        node = int(known.node_id) if known is not None else _register(home, key, name)
        home.note_admission(node, name)
    return node


def rename_site(home: CoordinatorHome, old: str, new: str) -> str:
    """Give an admitted site another name; what is kept of its audit log goes with it. The site must call itself so too.

    Returns what was done, in words.

    Raises
    ------
    FedAgeError
        If no site has the old name, the new one is no site name, or another site's, or something of its log is kept.
    """
    _check_name(new)
    with _one_at_a_time(home):
        admitted = home.admitted()
        node = _node_of(home, admitted, old)
        if new == old:
            return f"{old} is called so already; nothing was changed"
        if new in admitted.values():
            raise FedAgeError(f"{new!r} is another admitted site; rename or remove that one first")
        Heads(home.heads).rename(old, new)
        home.note_admission(node, new)
    return (
        f"{old} is now {new}; a campaign that runs goes on with the old name\n"
        f'the site answers under the name in its site.toml: there it must be name = "{new}"'
    )


def remove_site(home: CoordinatorHome, name: str) -> None:
    """Take a site's admission back: its node is cut off at once. What is kept of its audit log stays.

    Raises
    ------
    FedAgeError
        If no site has the name, or the coordinator is not running.
    """
    from flwr.proto.control_pb2 import UnregisterNodeRequest

    with _one_at_a_time(home):
        node = _node_of(home, home.admitted(), name)
        if node in _nodes(home):
            with control(home) as client:
                client.UnregisterNode(UnregisterNodeRequest(node_id=node))
        home.note_admission(node, None)


def admitted_sites(home: CoordinatorHome) -> list[AdmittedSite]:
    """The admitted sites by name, and nodes that nobody has named; online or not, where the SuperLink runs."""
    admitted = home.admitted()
    nodes = _nodes(home) if running(home) else None
    if nodes is None:
        return sorted((AdmittedSite(name, node, "unknown") for node, name in admitted.items()), key=_by_name)
    listed = [_site(admitted.get(node, ""), node, nodes.get(node)) for node in {*admitted, *nodes}]
    return sorted(listed, key=_by_name)


def node_key(file: Path) -> bytes:
    """The node key in a file, as Flower keeps it.

    Raises
    ------
    FedAgeError
        If the file cannot be read or holds something else; it says what.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_public_key, load_ssh_public_key
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes

    if not file.exists():
        raise FedAgeError(f"{file} is not there; {_MADE_BY}")
    try:
        with file.open("rb") as stream:
            content = stream.read(_KEY_BYTES).removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise FedAgeError(f"{file} cannot be read ({error.strerror}); {_MADE_BY}") from None
    if b"PRIVATE KEY" in content:
        raise FedAgeError(
            f"{file} is a private key, which must never leave its site: {_MADE_BY}. If it was sent here, remove "
            "node.key and node.pub at the site, make new ones with fedage site init, and delete this copy"
        )
    if b"BEGIN CERTIFICATE" in content:
        raise FedAgeError(f"{file} is a certificate, not a node key; {_MADE_BY}")
    try:
        pem = content.lstrip().startswith(b"-----BEGIN")
        key = load_pem_public_key(content) if pem else load_ssh_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        raise FedAgeError(f"{file} is no public key; {_MADE_BY}") from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        kind = type(key).__name__.removesuffix("PublicKey").lstrip("_").removeprefix("OpenSSL")
        what = " (perhaps a coordinator's signing key)" if kind == "Ed25519" else ""
        raise FedAgeError(f"{file} is a public key of another kind, {kind}{what}, not a node key; {_MADE_BY}")
    if key.curve.name not in {"secp256r1", "secp384r1", "secp521r1"}:
        raise FedAgeError(f"{file} is a key on the curve {key.curve.name}, not a node key; {_MADE_BY}")
    return public_key_to_bytes(key)


def _check_name(name: str) -> None:
    if not SITE_NAME.fullmatch(name):
        raise FedAgeError(f"{name!r} is no site name: allowed are 1 to 63 lower-case letters, digits and hyphens")


def _node_of(home: CoordinatorHome, admitted: dict[int, str], name: str) -> int:
    node = next((node for node, called in admitted.items() if called == name), None)
    if node is None:
        names = ", ".join(sorted(admitted.values()))
        known = f"admitted are {names}" if names else f"no site is admitted in {home.root} yet"
        raise FedAgeError(f"no site is admitted as {name!r}; {known}")
    return node


def _nodes(home: CoordinatorHome) -> dict[int, NodeInfo]:
    """The nodes that the SuperLink lets connect, by their ids."""
    from flwr.proto.control_pb2 import ListNodesRequest

    with control(home) as client:
        nodes = client.ListNodes(ListNodesRequest()).nodes_info
    return {node.node_id: node for node in nodes if node.status != "unregistered"}


def _register(home: CoordinatorHome, key: bytes, name: str) -> int:
    from flwr.proto.control_pb2 import RegisterNodeRequest

    with control(home) as client:
        node = int(client.RegisterNode(RegisterNodeRequest(public_key=key, name=name)).node_id)
    if not node:
        raise FedAgeError(f"the SuperLink did not register the key of {name}; see {home.logs / 'superlink.log'}")
    return node


def _site(name: str, node: int, known: NodeInfo | None) -> AdmittedSite:
    if known is None:
        return AdmittedSite(name, node, "gone from the SuperLink's database; admit it again")
    words = {"online": "online", "offline": "offline", "registered": "never connected"}
    since = {"online": known.last_activated_at, "offline": known.last_deactivated_at}.get(known.status, "")
    key = hashlib.sha256(known.public_key).hexdigest()[:32]
    return AdmittedSite(name, node, words.get(known.status, known.status), since, key)


def _by_name(site: AdmittedSite) -> tuple[bool, str, int]:
    return (not site.name, site.name, site.node_id)


@contextmanager
def _one_at_a_time(home: CoordinatorHome) -> Iterator[None]:
    """Two commands at once must not both find a name free."""
    with FileLock(home.root / "admitted.lock"):
        yield
