"""A bundle's bytes: the same come back, and whatever is not as it was signed is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedage.common.bundle.container import BundleRefused, read_bundle, write_bundle
from fedage.common.bundle.description import BoundedColumn, Description, InputTaken, Line, Origin, TrainedOn
from fedage.common.bundle.fits import estimator_of, fields_of, require_weights
from fedage.common.estimators import make
from fedage.common.protocol.messages import payload_digest

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
OPTIONS = {"features": ["a", "b"], "age_scale": "linear"}
ROW = ("feature:a", "feature:b")
WEIGHTS: dict[str, Any] = {
    "medians": np.array([1.0, 2.0]),
    "means": np.array([1.0, 2.0]),
    "sds": np.array([0.5, 0.25]),
    "coefficients": np.array([3.0, -1.0]),
    "intercept": np.array([50.0]),
}


def description(**changes: Any) -> Description:
    values: dict[str, Any] = {
        "fedage_version": "0.1.0",
        "origin": Origin(
            campaign="c", purpose="of a test", digest="0" * 64, run="r", environment="simulation", guard=True,
            phantoms=False,
        ),
        "estimator": "table-ridge",
        "options": OPTIONS,
        "samples_version": 1,
        "shapes": {"row": (2,)},
        "inputs": (InputTaken(name="row", rank=1),),
        "row": ROW,
        "outputs": (BoundedColumn(column="predicted_years", lower=0.0, upper=130.0),),
        "age_scale": "linear",
        "table": {"id": "subject", "age": "age", "male": 1.0, "missing": [-9999.0]},
        "trained_on": TrainedOn(sites={"north": 40}, age_limits_years=(0.0, 130.0)),
        "lines": {"north": Line(slope=0.8, intercept_years=10.0, n=30)},
        "weights_sha256": payload_digest(WEIGHTS),
        "card": "# Card",
    }  # fmt: skip
    return Description.model_validate(values | changes)


CONTENT = write_bundle(description(), WEIGHTS, key=KEY)


def with_metadata(change: Callable[[dict[str, Any]], dict[str, Any]], *, weights: dict[str, Any] = WEIGHTS) -> bytes:
    """The bundle with other metadata, as somebody without the key can write it."""
    length = int.from_bytes(CONTENT[:8], "little")
    signed = json.loads(json.loads(CONTENT[8 : 8 + length])["__metadata__"]["fedage-bundle"])
    return safetensors.numpy.save(weights, metadata={"fedage-bundle": json.dumps(change(signed))})


def test_what_was_written_is_read_and_twice_the_same() -> None:
    read = read_bundle(CONTENT, trusted=[KEY.public_key()])
    assert read.description == description()
    assert {name: array.tolist() for name, array in read.weights.items()} == {
        name: array.tolist() for name, array in WEIGHTS.items()
    }
    assert write_bundle(description(), WEIGHTS, key=KEY) == CONTENT
    assert read.description.table_choice is not None
    assert read.description.table_choice.missing == (-9999.0,)


@pytest.mark.parametrize("length", [0, 7, 8, 200, len(CONTENT) // 2, len(CONTENT) - 1])
def test_one_that_is_cut_off_is_refused(length: int) -> None:
    with pytest.raises(BundleRefused, match="cut off"):
        read_bundle(CONTENT[:length], name="x.fedage")


def test_every_altered_byte_is_refused() -> None:
    rng = np.random.default_rng(1)
    for at in (*rng.integers(8, len(CONTENT), 60), len(CONTENT) - 1):
        altered = bytearray(CONTENT)
        altered[at] ^= 1
        with pytest.raises(BundleRefused):
            read_bundle(bytes(altered))


def altered_text(signed: dict[str, Any]) -> dict[str, Any]:
    text = signed["description"].replace('"slope": 0.8', '"slope": 1.0')
    assert text != signed["description"]
    return {**signed, "description": text}


def signed_by_another(signed: dict[str, Any]) -> dict[str, Any]:
    return {**signed, "key": OTHER.public_key().public_bytes_raw().hex()}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (with_metadata(altered_text), "its signature does not hold"),
        (with_metadata(signed_by_another), "its signature does not hold"),
        (with_metadata(lambda signed: {**signed, "signature": "zz"}), "not signed as a bundle is"),
        (with_metadata(lambda signed: {"key": signed["key"]}), "not signed as a bundle is"),
        (with_metadata(lambda signed: signed, weights={**WEIGHTS, "means": WEIGHTS["means"] + 1}), "its arrays"),
        (with_metadata(lambda signed: signed, weights={**WEIGHTS, "more": WEIGHTS["means"]}), "its arrays"),
        (safetensors.numpy.save(WEIGHTS), "without a signed description"),
        (b"\x02\0\0\0\0\0\0\0[]", "no bundle"),
        (b"PK\x03\x04 a zip file that somebody renamed", "cut off, or no bundle"),
    ],
)
def test_one_that_is_not_as_it_was_signed_is_refused(content: bytes, words: str) -> None:
    with pytest.raises(BundleRefused, match=words) as refused:
        read_bundle(content, name="x.fedage")
    assert str(refused.value).startswith("x.fedage ")
    assert "\n" not in str(refused.value)


def test_a_foreign_signature_is_refused_where_a_key_is_trusted() -> None:
    with pytest.raises(BundleRefused, match="signed by a key that is not trusted here"):
        read_bundle(CONTENT, trusted=[OTHER.public_key()])
    assert read_bundle(CONTENT).key.public_bytes_raw() == KEY.public_key().public_bytes_raw()


def test_a_newer_format_and_a_wrong_description_are_named() -> None:
    def signed_text(text: str) -> bytes:
        signature = KEY.sign(b"fedage bundle 1\n" + text.encode()).hex()
        key = KEY.public_key().public_bytes_raw().hex()
        return with_metadata(lambda _signed: {"description": text, "key": key, "signature": signature})

    text = json.dumps(description().model_dump(mode="json"), sort_keys=True)
    with pytest.raises(BundleRefused, match="format 2, this release reads up to 1"):
        read_bundle(signed_text(text.replace('"format": 1', '"format": 2')))
    with pytest.raises(BundleRefused, match="does not fit format 1 at estimator"):
        read_bundle(signed_text(text.replace('"estimator": "table-ridge"', '"estimator": 3')))
    with pytest.raises(BundleRefused, match="no JSON"):
        read_bundle(signed_text("{"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"estimator": "table-oracle"}, "'table-oracle', which is not installed here"),
        ({"options": {**OPTIONS, "wavelets": 3}}, "options that the table-ridge installed here does not know"),
        ({"samples_version": 2}, "another version of table-ridge: its preprocessing is not"),
        ({"row": (*ROW, "feature:c")}, "its columns of a row are not"),
        ({"row": ROW[::-1]}, "its columns of a row are not"),
        ({"outputs": (BoundedColumn(column="predicted_years", lower=0.0, upper=99.0),)}, "its predicted columns are"),
    ],
)
def test_a_bundle_of_another_estimator_or_version_is_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(BundleRefused, match=words):
        estimator_of(description(**changes))


def test_a_checkpoint_of_another_estimator_is_refused() -> None:
    estimator = estimator_of(description())
    require_weights(estimator, WEIGHTS)
    three = {name: np.resize(array, 3) if array.size > 1 else array for name, array in WEIGHTS.items()}
    network = make("table-mlp", OPTIONS).for_table(["a", "b"])
    for wrong in ({}, three, {"conv1.weight": np.zeros((8, 1, 7, 7), np.float32)}, {**WEIGHTS, "extra": np.zeros(1)}):
        with pytest.raises(BundleRefused, match="holds no model of table-ridge"):
            require_weights(estimator, wrong)
    with pytest.raises(BundleRefused, match="holds no model of table-mlp"):
        require_weights(network, WEIGHTS)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("table-ridge", {"features": ["t*"], "exclude": ["t3"], "add_sex": True}),
        ("table-mlp", {"features": ["t1", "t*"], "age_scale": "linear"}),
        ("cortex-vnn", {"features": ["t*"], "exclude": ["t3"]}),
    ],
)
def test_what_a_pattern_found_is_in_the_options_of_every_estimator_on_tables(
    name: str, options: dict[str, Any]
) -> None:
    """So that the same columns are read elsewhere, whatever else a table there has."""
    made = make(name, options).for_table(["t1", "t2", "t3", "other"])
    fields = fields_of(made, options)
    assert "exclude" not in fields["options"]
    again = make(name, fields["options"]).for_table(["t1", "t2", "t3", "t4", "t99", "other"])
    assert tuple(again.row_columns) == tuple(made.row_columns) == fields["row"]
    assert fields["age_scale"] == options.get("age_scale", "log")
