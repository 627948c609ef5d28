"""Flower records on the coordinator's side: a signed request to a message, a reply to its head and arrays."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from numpy.typing import NDArray

from fedage.common.protocol import (
    PACKED,
    PAYLOAD,
    REPLY,
    REQUEST,
    Payload,
    Reply,
    Request,
    pack,
    read_packed,
    sign,
    unpack,
)


def request_content(request: Request, payload: Payload, *, key: Ed25519PrivateKey | None) -> RecordDict:
    """A signed request with its arrays. `key` is None in simulation only, where sites pin nobody."""
    fields: dict[str, Any] = dict(request.to_fields())
    packed = pack(payload) if payload else None
    fields["signature"] = sign(request, b"" if packed is None else packed.data, key=key) if key is not None else b""
    content = RecordDict({REQUEST: ConfigRecord(fields)})
    if packed is not None:
        content[PAYLOAD] = ArrayRecord({PACKED: Array(packed)})
    return content


def read_reply(message: Message) -> tuple[Reply, dict[str, NDArray[Any]]]:
    """The head and arrays of an answer. A malformed one raises ValueError."""
    head = message.content.config_records.get(REPLY)
    if head is None:
        raise ValueError("malformed reply: no reply record")
    record = message.content.array_records.get(PAYLOAD)
    arrays = unpack(read_packed(record[PACKED].data)) if record is not None else {}
    return Reply.from_fields(dict(head)), arrays
