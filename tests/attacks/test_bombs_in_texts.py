"""Texts, messages and tables that are made to stop a site are refused in a moment, and hide nothing beside them."""

from __future__ import annotations

import io
import struct
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from flwr.app import Array, ArrayRecord
from typer.testing import CliRunner

from fedage.client.audit import Direction
from fedage.client.cli.main import site
from fedage.client.cohort.table.limits import TABLE
from fedage.client.cohort.table.outcomes import read_outcomes
from fedage.client.cohort.table.read import read_frame
from fedage.client.consent.approvals import Approvals
from fedage.client.consent.policy import PolicyErrors, PolicyFile
from fedage.client.inbox import flower_records as records
from fedage.common.campaign_file import CampaignErrors, parse_campaign
from fedage.common.errors import FedAgeError
from fedage.common.protocol.messages import (
    ANALYSE,
    PACKED,
    PAYLOAD,
    REQUEST,
    TRAIN,
    pack,
    packed_bytes,
    read_packed,
    sign,
)
from tests.client.hospital import CAMPAIGN, Template, refused

DEEP = {
    "dotted keys": ".".join(["a"] * 990) + " = 1",
    "dotted table": "[" + ".".join(["b"] * 900) + "]\nx = 1",
    "inline tables": "x = " + "{a=" * 300 + "1" + "}" * 300,
    "lists": "x = " + "[" * 5000 + "]" * 5000,
    "array of tables": "\n".join("[[" + ".".join(["c"] * k) + "]]" for k in range(1, 200)),
    "digits": "x = " + "9" * 5000,
    "quoted dots": ".".join(['"a.b"'] * 400) + " = 1",
}


@pytest.mark.parametrize("name", DEEP)
def test_a_deep_text_is_one_clear_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(CampaignErrors):
        parse_campaign(CAMPAIGN + "\n" + DEEP[name])
    with pytest.raises(CampaignErrors):
        parse_campaign(DEEP[name])
    (tmp_path / "policy.toml").write_text(DEEP[name])
    with pytest.raises(PolicyErrors):
        PolicyFile(tmp_path).current()


def test_a_bad_offer_hides_no_other(template: Template, tmp_path: Path) -> None:
    hospital = template.copy(tmp_path)
    offered = Approvals(hospital.home)
    folder = hospital.home / "offered"
    folder.mkdir(exist_ok=True)
    for number, text in enumerate(DEEP.values()):
        (folder / f"{number:064x}.toml").write_text(text)
    done = CliRunner().invoke(site, ["campaigns", "--home", str(hospital.home)])
    assert done.exit_code == 0, done.output
    assert hospital.campaign.digest in done.output
    assert "front-door" in done.output
    assert offered.campaign(hospital.campaign.digest) is not None


def npy(shape: str, descr: str = "|u1", body: bytes = b"\0" * 10) -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (117 - len(header)) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body


ARRAYS = {
    "zero rows of many": npy("(0, 10000000000000)"),
    "many rows of nothing": npy("(10000000000000, 0)"),
    "a number": npy("()"),
    "nested dtype": npy("(10,)", "[('a', [('b', 'O')])]"),
    "nested header": npy("(" * 90 + ")" * 90),
    "1e13 bytes": npy("(10000000000000,)"),
    "overflow": npy(f"({2**62}, {2**62})"),
    "negative": npy("(-1,)"),
    "objects": npy("(10,)", "|O"),
    "floats": npy("(1000000000000,)", "<f8"),
    "wide texts": npy("(10,)", "<U1000000000"),
    "shorter": npy("(5,)"),
    "no header": b"\x93NUMPY\x01\x00\xff\xff",
    "version 9": b"\x93NUMPY\x09\x00" + bytes(100),
    "safetensors length": npy("(16,)", body=struct.pack("<Q", 2**60) + bytes(8)),
    "safetensors shape": npy(
        "(72,)", body=struct.pack("<Q", 64) + b'{"a":{"dtype":"F64","shape":[99999999999],"data_offsets":[0,8]}}'
    ),
}


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("signed", [True, False])
def test_an_array_that_lies_about_its_size_is_refused_with_its_line(
    template: Template, tmp_path: Path, name: str, signed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that the coordinator did not sign is refused for that, before any of it is read as an array."""
    hospital = template.copy(tmp_path)
    request = hospital.request(TRAIN, round=1)
    message = hospital.message(request)
    array = Array("uint8", (10,), "numpy.ndarray", ARRAYS[name])
    message.content[PAYLOAD] = ArrayRecord({PACKED: array})
    has_header = name != "no header"
    if signed and has_header:
        message.content[REQUEST]["signature"] = sign(request, packed_bytes(ARRAYS[name]), key=hospital.key)
    read = []
    monkeypatch.setattr(records, "read_packed", lambda npy: read.append(npy) or read_packed(npy))
    tracemalloc.start()
    reply, _ = hospital.deliver(message)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused(reply, hospital) == ("malformed-request" if signed or not has_header else "signature")
    assert len(read) == (signed and has_header)
    assert peak < 50_000_000
    assert [line.entry.direction for line in hospital.lines()][-2:] == [Direction.IN, Direction.OUT]
    assert hospital.ask(ANALYSE).status == "ok"


def test_an_honest_payload_is_read_as_it_was_packed() -> None:
    packed = pack({"a": np.arange(7.0), "b": np.ones((2, 3), dtype=np.float32)})
    stream = io.BytesIO()
    np.save(stream, packed)
    assert np.array_equal(read_packed(stream.getvalue()), packed)
    assert np.array_equal(read_packed(Array(packed).data), packed)
    assert bytes(packed_bytes(Array(packed).data)) == packed.tobytes()


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_a_table_of_too_many_columns_is_refused_at_once(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"wide{suffix}"
    names = [f"column_{number}" for number in range(20_001)]
    if suffix == ".parquet":
        pd.DataFrame(np.zeros((2, len(names))), columns=names).to_parquet(path)
    else:
        sign = "," if suffix == ".csv" else "\t"
        path.write_text("\n".join(sign.join(row) for row in (names, ["1"] * len(names), ["2"] * len(names))))
    began = time.process_time()
    with pytest.raises(FedAgeError, match=rf"20001 columns; allowed are {TABLE.columns}"):
        read_frame(path)
    if suffix != ".parquet":
        with pytest.raises(FedAgeError, match="20001 columns; allowed are 2000"):
            read_outcomes(path, id_column="column_0")
    assert time.process_time() - began < 5


def test_a_first_line_without_an_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "line.csv"
    path.write_bytes(b"a" * 50_000_000)
    for read in (read_frame, read_outcomes):
        with pytest.raises(FedAgeError, match="first line of more than"):
            read(path)


def test_what_is_no_column_is_not_counted_as_one(tmp_path: Path) -> None:
    """Lines that end with a carriage return alone, and names with commas in them."""
    (tmp_path / "cr.csv").write_bytes(b"a,b\r" + b"1,2\r" * 6000)
    assert read_frame(tmp_path / "cr.csv").shape == (6000, 2)
    names = ",".join(f'"x{number}{",y" * 11}"' for number in range(500))
    (tmp_path / "quoted.csv").write_text(f"{names}\n{','.join(['1'] * 500)}\n")
    assert read_frame(tmp_path / "quoted.csv").shape == (1, 500)
