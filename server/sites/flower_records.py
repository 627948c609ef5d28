"""Flower records on the coordinator's side: a signed request to a message, a reply to its head and arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from numpy.typing import NDArray

from fedage.common.protocol.messages import (
    PACKED,
    PAYLOAD,
    REPLY,
    REQUEST,
    Packed,
    Payload,
    Reply,
    Request,
    pack,
    packed_bytes,
    sign,
    unpack,
)
from fedage.server.superlink.grid import Failure


def request_content(request: Request, payload: Payload, *, key: Ed25519PrivateKey | None) -> RecordDict:
    """A signed request with its arrays. `key` is None in simulation only, where sites pin nobody."""
    fields: dict[str, Any] = dict(request.to_fields())
    packed = pack(payload) if payload else None
    fields["signature"] = sign(request, b"" if packed is None else packed.data, key=key) if key is not None else b""
    content = RecordDict({REQUEST: ConfigRecord(fields)})
    if packed is not None:
        content[PAYLOAD] = ArrayRecord({PACKED: Array(packed)})
    return content


def read_reply(message: Message) -> tuple[Reply, Packed]:
    """The head of an answer and its packed payload, whose arrays wait until its signature is checked.

    Raises
    ------
    ValueError
        If it is malformed.
    """
    head = message.content.config_records.get(REPLY)
    if head is None:
        raise ValueError("malformed reply: no reply record")
    record = message.content.array_records.get(PAYLOAD)
    try:
        packed: Packed = b"" if record is None else packed_bytes(record[PACKED].data)
    except (KeyError, ValueError, TypeError):
        raise ValueError("malformed reply: its payload has no packed array") from None
    if record is not None and not len(packed):
        raise ValueError("malformed reply: its payload is empty")
    return Reply.from_fields(dict(head)), packed


def read_or_failure(message: Message) -> tuple[Reply, Packed] | Failure:
    """`read_reply`, or a failure in its place."""
    try:
        return read_reply(message)
    except Exception as error:  # noqa: BLE001 - whatever a stranger's bytes bring about, the campaign goes on
        ours = str(error).startswith("malformed reply")
        return Failure(code=0, reason=str(error) if ours else "malformed reply")


def read_arrays(packed: Packed) -> dict[str, NDArray[Any]]:
    """The arrays of an answer whose signature is known to be good.

    Raises
    ------
    ValueError
        If they cannot be read.
    """
    if not len(packed):
        return {}
    try:
        return unpack(np.frombuffer(packed, dtype=np.uint8))
    except (KeyError, ValueError, TypeError, OSError, EOFError, MemoryError):
        raise ValueError("its payload cannot be read") from None
