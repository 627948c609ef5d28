"""What travels between a campaign and a site, and how a request proves where it comes from.

A request says *which registered step* of an approved campaign file to run, the round, and the current iterate (weights,
coefficients). It never says what to compute: that is in the file. It is signed by the coordinator over everything in
it, payload included, so that neither the network nor the relay can alter it or make one up.

This module knows dictionaries, bytes and arrays only; the two sides put them into Flower records.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
import safetensors.numpy
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from numpy.typing import NDArray
from safetensors import SafetensorError

from fedage.common.errors import Refusal
from fedage.common.protocol.heads import HeadMalformed, SignedHead

PROTOCOL_VERSION = 3
"""2: replies are signed by their site. 3: the sums that a table's first model is made of come with the model, and
a request's signature is over the bytes of its packed payload."""
REQUEST, PAYLOAD, REPLY, PACKED = "request", "payload", "reply", "packed"
"""Names of the records in a message, and of the one array in a payload record."""

DESCRIBE = "query.describe"
"""Offer a campaign; the site answers with counts and versions, or refuses."""
TRAIN = "train"
"""A model in, an update and the validation sums of the incoming model out."""
EVALUATE = "evaluate"
"""A final model in; the site predicts and keeps the predictions. The sums of the first analyses come out."""
ANALYSE = "query.analyse"
"""Iterates of registered analyses in, their sums out."""
SECURE = "query.secure"
"""Keys and seeds of secure aggregation (`protocol.secure`); answered by whoever answers more than offers."""
KINDS = {DESCRIBE: "describe", TRAIN: "train", EVALUATE: "evaluate", ANALYSE: "analyse"}
"""What a site's policy and its answers call each kind of message."""

REPLAY = "replay"
"""The rule by which a site refuses a request that it has had before and has no answer of any more."""

Payload = Mapping[str, NDArray[Any]]
Packed = bytes | memoryview
"""A payload as one safetensors file; no bytes where there is none."""

RUN_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")
"""What a run may be called: it names folders and files at the coordinator and at every site."""
_SITE_NAME = re.compile(r"^[a-z0-9][a-z0-9-]{0,62}$")
_DIGEST = re.compile(r"^[0-9a-f]{64}$")
_SIGNATURE = re.compile(r"[0-9a-f]{128}")
MAX_WORD, MAX_REASON = 80, 600
"""Characters that are read of a reply's rule and version, and of its reason."""


class RequestRefused(Refusal):
    """A site does not answer a request."""


@dataclass(frozen=True)
class Request:
    """The signed head of a message. `campaign` holds the campaign file, in a DESCRIBE only."""

    kind: str
    digest: str
    run: str
    round: int = 0
    fold: int = 0
    campaign: str = ""
    nonce: str = field(default_factory=lambda: secrets.token_hex(16))
    protocol: int = PROTOCOL_VERSION
    version: str = ""

    def to_fields(self) -> dict[str, int | str]:
        """Plain fields for a record."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_fields(cls, values: Mapping[str, Any]) -> Request:
        """Rebuild and type-check.

        Raises
        ------
        RequestRefused
            Rule `malformed-request`, naming the field.
        """
        known: dict[str, Any] = {}
        for item in fields(cls):
            expected = int if item.name in {"round", "fold", "protocol"} else str
            value = values.get(item.name)
            if type(value) is not expected:
                raise RequestRefused("malformed-request", f"field {item.name} must be {expected.__name__}")
            known[item.name] = value
        request = cls(**known)
        if request.protocol != PROTOCOL_VERSION:
            raise RequestRefused(
                "protocol-version",
                f"the coordinator speaks protocol {request.protocol}, this site {PROTOCOL_VERSION}; "
                "install the same FedAge release on both sides",
            )
        if not RUN_NAME.fullmatch(request.run) or not _DIGEST.fullmatch(request.digest):
            raise RequestRefused("malformed-request", "the run's name or the digest is not of its form")
        if not 0 <= request.round <= 1_000_000 or not 0 <= request.fold <= 1000:
            raise RequestRefused("malformed-request", "round or fold out of range")
        return request

    def signing_bytes(self, packed: Packed = b"") -> bytes:
        """The canonical bytes that are signed: sorted JSON of the fields and the digest of the packed payload.

        Of its bytes as they travel, not of the arrays in them: so a site checks the signature before it reads any.
        """
        body = {**self.to_fields(), "payload_sha256": packed_digest(packed)}
        return b"fedage request\n" + json.dumps(body, sort_keys=True, ensure_ascii=True).encode()


def payload_digest(payload: Payload) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of the arrays, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(payload):
        array = np.asarray(payload[name], order="C")
        digest.update(json.dumps([name, array.dtype.str, list(array.shape)]).encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def pack(payload: Payload) -> NDArray[np.uint8]:
    """All arrays of a payload as the bytes of one safetensors file, (bytes,).

    Flower moves every array as objects of its own, each a request with its own authentication and database work: a
    network of 250 arrays took a minute to reach three sites, its bytes in one array take a second.
    """
    arrays = {name: np.asarray(array, order="C") for name, array in payload.items()}
    return np.frombuffer(safetensors.numpy.save(arrays), dtype=np.uint8)


def packed_digest(packed: Packed) -> str:
    """SHA-256 of a packed payload as it travels: what is signed, so that a signature is checked before arrays are read.

    Of no bytes where a message has no payload.
    """
    return hashlib.sha256(packed).hexdigest()


def unpack(packed: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """The inverse of `pack`.

    Raises
    ------
    ValueError
        If the bytes are no safetensors file.
    """
    if packed.dtype != np.uint8 or packed.ndim != 1:
        raise ValueError("a packed payload is one row of bytes")
    try:
        return safetensors.numpy.load(packed.tobytes())
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"a packed payload cannot be read ({type(error).__name__})") from None


def packed_bytes(npy: bytes) -> memoryview:
    """The bytes behind an npy header, whatever it says: only its length is read, for the signature to be checked first.

    Raises
    ------
    ValueError
        If there is no such header.
    """
    long = npy[6:7] != b"\x01"
    begins = (12 if long else 10) + int.from_bytes(npy[8 : 12 if long else 10], "little")
    if npy[:6] != b"\x93NUMPY" or len(npy) < begins:
        raise ValueError("no npy header of the length that it says")
    return memoryview(npy)[begins:]


def read_packed(npy: bytes) -> NDArray[np.uint8]:
    """The packed payload in an array's npy bytes, without a copy.

    NumPy's own reader makes room for what the header says before it reads: a header of a hundred bytes that says 1e13
    would end in a MemoryError.

    Raises
    ------
    ValueError
        If it is no row of bytes of just the length that it says.
    """
    stream = io.BytesIO(npy)
    major, _ = np.lib.format.read_magic(stream)
    if major not in (1, 2):
        raise ValueError("an npy header of an unknown version")
    reader = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, _, dtype = reader(stream)
    if dtype != np.uint8 or len(shape) != 1 or shape[0] != len(npy) - stream.tell():
        raise ValueError("a packed payload is one row of bytes, of the length that it says")
    return np.frombuffer(npy, dtype=np.uint8, offset=stream.tell())


def sign(request: Request, packed: Packed, *, key: Ed25519PrivateKey) -> bytes:
    """Sign a request and its packed payload, 64 bytes."""
    return key.sign(request.signing_bytes(packed))


def verify(request: Request, packed: Packed, signature: bytes, *, key: Ed25519PublicKey) -> None:
    """Check the coordinator's signature.

    Raises
    ------
    RequestRefused
        Rule `signature`, if it is not the pinned coordinator's over exactly this request and payload.
    """
    try:
        key.verify(signature, request.signing_bytes(packed))
    except InvalidSignature:
        raise RequestRefused("signature", "not signed by the coordinator this site has pinned") from None


@dataclass(frozen=True)
class Reply:
    """The head of an answer.

    Parameters
    ----------
    info
        JSON: counts, versions, what was withheld and why. In the answer to a DESCRIBE also `audit_key`, the 32 raw
        bytes of the site's public audit key in hexadecimal, and `kinds`, a list of those of `KINDS` that the site's
        policy answers; both absent in simulation.
    audit
        The signed head of the site's audit log, after the line about this answer: `SignedHead.to_json()`. Empty in
        simulation.
    signature
        The site's, by the key of its audit log, hexadecimal: over all fields, the payload and the request's nonce
        (`reply_signature`). Empty in simulation.
    """

    site: str
    digest: str
    status: Literal["ok", "refused"]
    rule: str = ""
    reason: str = ""
    info: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""
    audit: str = ""
    signature: str = ""

    def to_fields(self) -> dict[str, str]:
        """Plain fields for a record."""
        return {
            "site": self.site,
            "digest": self.digest,
            "status": self.status,
            "rule": self.rule,
            "reason": self.reason,
            "info": json.dumps(self.info, sort_keys=True, allow_nan=False),
            "version": self.version,
            "audit": self.audit,
            "signature": self.signature,
        }

    @property
    def head(self) -> SignedHead | None:
        """The signed head that came along, its signature not yet verified; None where there is none."""
        return SignedHead.from_json(self.audit) if self.audit else None

    @classmethod
    def from_fields(cls, values: Mapping[str, Any]) -> Reply:
        """Rebuild a reply; a malformed one raises ValueError."""
        texts = {f.name: values.get(f.name, "" if f.name in ("audit", "signature") else None) for f in fields(cls)}
        if not all(isinstance(text, str) for text in texts.values()):
            raise ValueError("malformed reply: a field is missing or not text")
        status = texts["status"]
        try:
            info = json.loads(str(texts["info"]))
        except RecursionError:
            raise ValueError("malformed reply: info is nested too deeply") from None
        if status not in ("ok", "refused") or not isinstance(info, dict):
            raise ValueError("malformed reply: unknown status or info that is no object")
        if not _SITE_NAME.fullmatch(str(texts["site"])):
            raise ValueError("malformed reply: the site's name is not of its form")
        audit, signature = str(texts["audit"]), str(texts["signature"])
        if signature and not _SIGNATURE.fullmatch(signature):
            raise ValueError("malformed reply: the signature is not of its form")
        if audit:
            try:
                SignedHead.from_json(audit)
            except HeadMalformed as error:
                raise ValueError(f"malformed reply: {error}") from None
        return cls(
            site=str(texts["site"]),
            digest=str(texts["digest"]),
            status=status,
            rule=printable(str(texts["rule"])[:MAX_WORD]),
            reason=printable(str(texts["reason"])[:MAX_REASON]),
            info=info,
            version=printable(str(texts["version"])[:MAX_WORD]),
            audit=audit,
            signature=signature,
        )


def printable(text: str) -> str:
    """A stranger's text without what would steer a terminal or spoil a file."""
    return "".join(character if character.isprintable() else " " for character in text)


MODEL_PREFIX, PREPARATION_PREFIX, TRAINED_PREFIX, GIVEN_PREFIX = "model:", "preparation:", "trained:", "given:"
"""Of names in a payload: arrays of the model, and what a model of the run follows from (`protocol.basis`)."""
CONTROL_PREFIX, COUNTED_PREFIX = "control:", "counted:"
"""Of names in a payload: arrays of the server's control variate, and by site the last round whose update counted."""
SECURE_PART = "secure:part"
"""Name in a payload of what is told of keys and masks (`protocol.secure`)."""
BUNDLE = "bundle:file"
"""Name in a payload of the bytes of a bundle (`common.bundle`), which has a model and all that proves whose it is."""


def join_model(weights: Payload) -> dict[str, NDArray[Any]]:
    """Payload names for model weights, so that iterates can travel in the same message."""
    return {MODEL_PREFIX + name: array for name, array in weights.items()}


def model_of(payload: Payload) -> dict[str, NDArray[Any]]:
    """The model weights of a payload, or a change of them, by name."""
    return {name.removeprefix(MODEL_PREFIX): a for name, a in payload.items() if name.startswith(MODEL_PREFIX)}


def without_model(payload: Payload) -> dict[str, NDArray[Any]]:
    """A payload without its model, or change of one."""
    return {name: array for name, array in payload.items() if not name.startswith(MODEL_PREFIX)}


def join_bundle(content: bytes) -> dict[str, NDArray[Any]]:
    """Payload name for the bytes of a bundle."""
    return {BUNDLE: np.frombuffer(content, dtype=np.uint8)}


def bundle_of(payload: Payload) -> bytes | None:
    """The bytes of a bundle in a payload; None if it has none, or something else under that name."""
    array = payload.get(BUNDLE)
    return None if array is None or array.dtype != np.uint8 or array.ndim != 1 else array.tobytes()


def split_payload(payload: Payload) -> tuple[dict[str, NDArray[Any]], dict[str, dict[str, NDArray[np.float64]]]]:
    """Model weights by name, and iterates by step, of one payload. Raises `RequestRefused` as `split_iterates` does."""
    of_model = (MODEL_PREFIX, PREPARATION_PREFIX, TRAINED_PREFIX, GIVEN_PREFIX, CONTROL_PREFIX, COUNTED_PREFIX)
    others = (*of_model, BUNDLE, SECURE_PART)
    return model_of(payload), split_iterates({name: a for name, a in payload.items() if not name.startswith(others)})


def iterate_key(step: str, block: str) -> str:
    """The payload name of one block of one step's iterate."""
    return f"{step}|{block}"


def split_iterates(payload: Payload) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Iterates by step from a payload whose names are `step|block`; a bare `step|` is an empty iterate.

    Raises
    ------
    RequestRefused
        Rule `malformed-request` for a name without `|` or an array that is not float64.
    """
    steps: dict[str, dict[str, NDArray[np.float64]]] = {}
    for key, array in payload.items():
        step, bar, block = key.partition("|")
        if not bar or array.dtype != np.float64:
            raise RequestRefused("malformed-request", "iterates must be named step|block and be float64")
        steps.setdefault(step, {})
        if block:
            steps[step][block] = array
    return steps


def join_iterates(steps: Mapping[str, Mapping[str, NDArray[np.float64]]]) -> dict[str, NDArray[np.float64]]:
    """The inverse of `split_iterates`."""
    payload: dict[str, NDArray[np.float64]] = {}
    for step, blocks in steps.items():
        payload[iterate_key(step, "")] = np.empty(0)
        for block, array in blocks.items():
            payload[iterate_key(step, block)] = np.asarray(array, dtype=np.float64)
    return payload


def derived_seed(*parts: str | int) -> int:
    """A 63-bit seed from named parts (campaign seed, site, round, …): the same parts give the same seed anywhere."""
    digest = hashlib.sha256(json.dumps(list(parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
