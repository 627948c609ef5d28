"""A bundle's bytes: one safetensors file whose metadata hold the description and a signature over it.

The description has the digest of the arrays, so that one signature (Ed25519) is over everything. Anything that reads
safetensors reads the arrays; `read_bundle` checks all there is before it gives any of it away.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors.numpy
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError

from fedage.common.bundle.description import FORMAT, Description
from fedage.common.errors import FedAgeError
from fedage.common.protocol.heads import fingerprint, key_from_hex, key_to_hex
from fedage.common.protocol.messages import payload_digest

SUFFIX = ".fedage"
_CONTEXT = b"fedage bundle 1\n"
_METADATA = "fedage-bundle"
_LENGTH_BYTES = 8
Arrays = Mapping[str, NDArray[Any]]


class BundleRefused(FedAgeError):
    """A file is no bundle that may be used; the message says why in one line."""


@dataclass(frozen=True)
class Bundle:
    """A bundle whose signature, digests and description hold.

    Parameters
    ----------
    description
        What it says.
    weights
        The model's arrays.
    key
        Who signed it.
    digest
        SHA-256 of its bytes, hexadecimal, as `sha256sum FILE` prints it.
    """

    description: Description
    weights: Arrays
    key: Ed25519PublicKey
    digest: str


def write_bundle(description: Description, weights: Arrays, *, key: Ed25519PrivateKey) -> bytes:
    """The bytes of a bundle; the same content and key give the same bytes.

    Raises
    ------
    ValueError
        If the description has the digest of other arrays.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in weights.items()}
    if description.weights_sha256 != payload_digest(arrays):
        raise ValueError("the description is of other arrays")
    text = json.dumps(description.model_dump(mode="json"), sort_keys=True, ensure_ascii=True)
    signed = {
        "description": text,
        "key": key_to_hex(key.public_key()),
        "signature": key.sign(_CONTEXT + text.encode()).hex(),
    }
    # One entry: the format keeps several in no fixed order.
    return safetensors.numpy.save(arrays, metadata={_METADATA: json.dumps(signed, sort_keys=True)})


def read_bundle(
    content: bytes, *, name: str = "the bundle", trusted: Collection[Ed25519PublicKey] | None = None
) -> Bundle:
    """Check the bytes of a bundle.

    Parameters
    ----------
    name
        What messages call the file.
    trusted
        Keys one of which must have signed it; None for any, where the file's digest is known from elsewhere.

    Raises
    ------
    BundleRefused
        If it is cut off or no bundle, not signed or not by such a key, altered, or of a form unknown here.
    """
    text, key, signature = _signed(content, name=name)
    try:
        key.verify(signature, _CONTEXT + text.encode())
    except InvalidSignature:
        raise BundleRefused(f"{name} was altered: its signature does not hold; get it once more") from None
    if trusted is not None and fingerprint(key) not in map(fingerprint, trusted):
        known = " or ".join(f"{fingerprint(one)[:16]}…" for one in trusted) or "none"
        raise BundleRefused(
            f"{name} is signed by a key that is not trusted here ({fingerprint(key)[:16]}…; trusted is {known}); give "
            "the coordinator.pub of whoever exported it, if you trust them"
        )
    description = _description(text, name=name)
    try:
        weights = safetensors.numpy.load(content)
    except (SafetensorError, KeyError, ValueError):
        raise BundleRefused(_cut_off(name)) from None
    if payload_digest(weights) != description.weights_sha256:
        raise BundleRefused(f"{name} was altered: its arrays are not those that were signed; get it once more")
    return Bundle(description, weights, key, hashlib.sha256(content).hexdigest())


def _signed(content: bytes, *, name: str) -> tuple[str, Ed25519PublicKey, bytes]:
    """Description, key and signature as the file has them, none of it checked yet."""
    length = int.from_bytes(content[:_LENGTH_BYTES], "little")
    if len(content) < _LENGTH_BYTES or length > len(content) - _LENGTH_BYTES:
        raise BundleRefused(_cut_off(name))
    try:
        header = json.loads(content[_LENGTH_BYTES : _LENGTH_BYTES + length])
        metadata = header.get("__metadata__", {})
        arrays = [value["data_offsets"] for at, value in header.items() if at != "__metadata__"]
        needed = max((int(end) for _, end in arrays), default=0)
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
        raise BundleRefused(f"{name} is no bundle; give a file that fedage campaign export wrote") from None
    if len(content) < _LENGTH_BYTES + length + needed:
        raise BundleRefused(_cut_off(name))
    if not isinstance(metadata, dict) or not isinstance(metadata.get(_METADATA), str):
        raise BundleRefused(
            f"{name} is a model without a signed description, so nobody can say what it is of; give a file that fedage "
            "campaign export wrote"
        )
    try:
        fields = json.loads(metadata[_METADATA])
        text = fields["description"]
        if not isinstance(text, str):
            raise TypeError
        return text, key_from_hex(fields["key"]), bytes.fromhex(fields["signature"])
    except (ValueError, RecursionError, KeyError, TypeError):
        raise BundleRefused(f"{name} is not signed as a bundle is; get it once more") from None


def _description(text: str, *, name: str) -> Description:
    try:
        values = json.loads(text)
        version = values.get("format") if isinstance(values, dict) else None
        if isinstance(version, int) and version > FORMAT:
            raise BundleRefused(
                f"{name} has format {version}, this release reads up to {FORMAT}; install a newer FedAge"
            )
        description = Description.model_validate(values)
        _ = description.table_choice
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the description"
        raise BundleRefused(
            f"{name} does not fit format {FORMAT} at {where} ({first['msg']}); export it anew"
        ) from None
    except (ValueError, RecursionError):
        raise BundleRefused(f"{name} has a description that is no JSON; export it anew") from None
    return description


def _cut_off(name: str) -> str:
    return f"{name} is cut off, or no bundle; get it once more"
