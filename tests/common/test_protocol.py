from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedage.common.protocol.heads import Head, SignedHead, key_from_hex, key_to_hex
from fedage.common.protocol.messages import (
    Reply,
    Request,
    RequestRefused,
    derived_seed,
    join_iterates,
    join_model,
    pack,
    payload_digest,
    sign,
    split_payload,
    unpack,
    verify,
)

KEY = Ed25519PrivateKey.generate()


def a_request(**changes: object) -> Request:
    values: dict[str, object] = {"kind": "train", "digest": "d" * 64, "run": "r1", "round": 3, "nonce": "n"}
    return Request(**{**values, **changes})  # type: ignore[arg-type]


def payload() -> dict[str, np.ndarray]:
    return {
        **join_model({"w": np.arange(6, dtype=np.float32).reshape(2, 3)}),
        **join_iterates({"cox": {"beta": np.ones(2)}}),
    }


def packed() -> np.ndarray:
    return pack(payload())


def test_a_signed_request_verifies() -> None:
    request = a_request()
    verify(request, packed(), sign(request, packed(), key=KEY), key=KEY.public_key())


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "evaluate"},
        {"digest": "e" * 64},
        {"run": "r2"},
        {"round": 4},
        {"fold": 1},
        {"nonce": "m"},
        {"campaign": "x"},
    ],
)
def test_no_field_can_be_changed_after_signing(change: dict[str, object]) -> None:
    signature = sign(a_request(), packed(), key=KEY)
    with pytest.raises(RequestRefused, match="signature"):
        verify(a_request(**change), packed(), signature, key=KEY.public_key())


def test_no_bit_of_the_payload_can_be_changed_after_signing() -> None:
    signature = sign(a_request(), packed(), key=KEY)
    for name in payload():
        changed = payload()
        if changed[name].size:
            changed[name].flat[0] += 1
        else:
            changed["another|"] = np.empty(0)
        with pytest.raises(RequestRefused, match="signature"):
            verify(a_request(), pack(changed), signature, key=KEY.public_key())


def test_another_coordinators_signature_is_refused() -> None:
    signature = sign(a_request(), b"", key=Ed25519PrivateKey.generate())
    with pytest.raises(RequestRefused, match="pinned"):
        verify(a_request(), b"", signature, key=KEY.public_key())


def test_the_payload_digest_sees_names_shapes_and_types() -> None:
    base = np.zeros((2, 3), dtype=np.float32)
    digests = {
        payload_digest(arrays)
        for arrays in (
            {"a": base},
            {"b": base},
            {"a": base.reshape(3, 2)},
            {"a": base.astype(np.float64)},
            {"a": base, "b": np.empty(0)},
            {"a": np.asfortranarray(base) + 1},
        )
    }
    assert len(digests) == 6
    assert payload_digest({"a": np.asfortranarray(base)}) == payload_digest({"a": base})


def test_fields_round_trip_and_are_type_checked() -> None:
    request = a_request()
    assert Request.from_fields(request.to_fields()) == request
    for name, wrong in (("round", "3"), ("digest", 5), ("round", True), ("round", -1), ("fold", 10**9)):
        with pytest.raises(RequestRefused, match="malformed-request"):
            Request.from_fields({**request.to_fields(), name: wrong})
    with pytest.raises(RequestRefused, match="protocol-version"):
        Request.from_fields({**request.to_fields(), "protocol": 99})


def test_payloads_split_into_what_was_joined() -> None:
    weights, iterates = split_payload(payload())
    np.testing.assert_array_equal(weights["w"], np.arange(6, dtype=np.float32).reshape(2, 3))
    np.testing.assert_array_equal(iterates["cox"]["beta"], np.ones(2))
    assert split_payload(join_iterates({"empty": {}}))[1] == {"empty": {}}
    with pytest.raises(RequestRefused):
        split_payload({"nobar": np.zeros(1)})
    with pytest.raises(RequestRefused):
        split_payload({"a|b": np.zeros(1, dtype=np.float32)})


def test_replies_round_trip_and_refuse_what_is_malformed() -> None:
    reply = Reply(site="north", digest="d", status="refused", rule="x", reason="y", info={"n": 3, "small": None})
    assert Reply.from_fields(reply.to_fields()) == reply
    with pytest.raises(ValueError, match="malformed"):
        Reply.from_fields({**reply.to_fields(), "status": "fine"})
    with pytest.raises(ValueError, match="malformed"):
        Reply.from_fields({**reply.to_fields(), "site": 3})


def test_seeds_differ_by_every_part_and_repeat() -> None:
    seeds = {derived_seed("train", 1, site, r) for site in ("a", "b") for r in (1, 2)}
    assert len(seeds) == 4
    assert derived_seed("train", 1, "a", 1) in seeds
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_packing_keeps_names_shapes_types_and_bits() -> None:
    arrays = {
        "model:w": np.arange(6, dtype=np.float32).reshape(2, 3),
        "step|": np.empty(0),
        "step|scalar": np.asarray(2.5),
        "step|strided": np.arange(10.0)[::2],
        "nan|x": np.array([np.nan, np.inf]),
    }
    found = unpack(pack(arrays))
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        assert (found[name].shape, found[name].dtype) == (array.shape, array.dtype)
        np.testing.assert_array_equal(found[name], array)
    assert payload_digest(found) == payload_digest(arrays)
    for bad in (np.zeros(3), np.zeros(5, dtype=np.uint8), np.frombuffer(b"\xff" * 40, dtype=np.uint8)):
        with pytest.raises(ValueError, match="packed"):
            unpack(bad)


def signed_head(**changes: object) -> SignedHead:
    head = Head(sequence=7, hash="ab" * 32, time_utc="2026-01-31T12:00:00.000000Z")
    signed = SignedHead(**vars(head), signature=KEY.sign(head.signing_bytes()).hex())
    return replace(signed, **changes)  # type: ignore[arg-type]


def test_a_reply_carries_the_signed_head_of_the_audit_log() -> None:
    reply = Reply(site="north", digest="d", status="ok", audit=signed_head().to_json())
    read = Reply.from_fields(reply.to_fields())
    assert read == reply
    assert read.head == signed_head()
    assert read.head is not None
    assert read.head.is_signed_by(KEY.public_key())
    for changed in (signed_head(sequence=8), signed_head(hash="cd" * 32), signed_head(time_utc="2026-01-31")):
        assert not changed.is_signed_by(KEY.public_key())
    fields = reply.to_fields()
    del fields["audit"]
    assert Reply.from_fields(fields).head is None


@pytest.mark.parametrize(
    "junk",
    [
        "junk",
        "[]",
        "[" * 100_000,
        "{}",
        signed_head(sequence=-1).to_json(),
        signed_head(sequence=2**60).to_json(),
        signed_head(hash="AB" * 32).to_json(),
        signed_head(hash="a" * 63 + "\n").to_json(),
        signed_head(signature="0" * 127).to_json(),
        signed_head(time_utc="x" * 41).to_json(),
        signed_head().to_json().replace("7", "7.0"),
    ],
)
def test_junk_in_place_of_a_head_is_a_malformed_reply(junk: str) -> None:
    fields = Reply(site="north", digest="d", status="ok").to_fields()
    with pytest.raises(ValueError, match="malformed reply"):
        Reply.from_fields({**fields, "audit": junk})


def test_a_replys_texts_steer_no_terminal_and_its_info_no_stack() -> None:
    reply = Reply(site="north", digest="d", status="refused", rule="a\x1b[2J", reason="b\r\nc\x00\ud800")
    read = Reply.from_fields(reply.to_fields())
    assert (read.rule, read.reason) == ("a [2J", "b  c  ")
    with pytest.raises(ValueError, match="malformed reply"):
        Reply.from_fields({**reply.to_fields(), "info": "[" * 100_000})


def test_a_public_key_survives_as_hexadecimal_digits() -> None:
    text = key_to_hex(KEY.public_key())
    assert key_to_hex(key_from_hex(text)) == text
    for wrong in (text.upper() + "0", text[:-1], text + "\n", ""):
        with pytest.raises(ValueError, match="64"):
            key_from_hex(wrong)
