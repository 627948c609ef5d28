"""Headers to facts or reasons: every transfer syntax, every bad file, pydicom's own files."""

import logging
import os
from datetime import date
from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
import pytest
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from fedage.client.cohort.ages import AgeSource
from fedage.client.cohort.dicom.facts import DicomFacts, read_facts
from fedage.client.cohort.reasons import Reason, Rejected
from tests.client.cohort.dicoms import BIRTH_DATE, NAME, cut, ramp, write, write_without_pixels


def facts(path: Path) -> DicomFacts:
    found = read_facts(path)
    assert isinstance(found, DicomFacts), found
    return found


def code(path: Path) -> Reason:
    found = read_facts(path)
    assert isinstance(found, Rejected), found
    return found.code


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
def test_facts_are_the_same_in_every_encoding(tmp_path: Path, syntax: str) -> None:
    ds = write(tmp_path / "a.dcm", "P 1 ", syntax=syntax, Laterality="L")
    found = facts(tmp_path / "a.dcm")
    assert (found.patient_id, found.sop_uid, found.study_uid) == ("P 1", ds.SOPInstanceUID, ds.StudyInstanceUID)
    # 17 March 1961 to 17 March 2021: sixty years with fifteen leap days, 1964 to 2020
    assert found.age.years == (60 * 365 + 15) / 365.25 == 60.0
    assert found.age.source is AgeSource.DATES
    assert found.exam_day == date(2021, 3, 17).toordinal()
    assert (found.sex, found.modality, found.view, found.laterality) == ("F", "CR", "PA", "L")
    assert (found.rows, found.columns, found.photometric) == (6, 5, "MONOCHROME2")
    assert (found.manufacturer, found.transfer_syntax, found.spacing_known) == ("Phantom Imaging", syntax, True)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_sequences_are_stepped_over(tmp_path: Path, syntax: str) -> None:
    for name, undefined in (("a.dcm", True), ("b.dcm", False)):
        inner, outer = pydicom.Dataset(), pydicom.Dataset()
        inner.PatientID, inner.Rows = "another", 9999
        outer.ReferencedImageSequence = [inner, inner]
        outer.IconImageSequence = [inner]
        for item in (outer, inner):
            item.is_undefined_length_sequence_item = undefined
        outer["ReferencedImageSequence"].is_undefined_length = undefined
        outer["IconImageSequence"].is_undefined_length = undefined
        write(tmp_path / name, "P1", syntax=syntax, ReferencedStudySequence=[outer])
        found = facts(tmp_path / name)
        assert (found.patient_id, found.rows) == ("P1", 6)


def test_identifier_is_read_in_the_file_s_character_set(tmp_path: Path) -> None:
    write(tmp_path / "latin.dcm", "Müller-1", SpecificCharacterSet="ISO_IR 100")
    write(tmp_path / "utf8.dcm", "Müller-1", SpecificCharacterSet="ISO_IR 192")
    assert facts(tmp_path / "latin.dcm").patient_id == facts(tmp_path / "utf8.dcm").patient_id == "Müller-1"


def test_bad_files_have_their_reasons(tmp_path: Path) -> None:
    bad = {
        "text.dcm": Reason.NOT_DICOM,
        "empty.dcm": Reason.NOT_DICOM,
        "no-pixels.dcm": Reason.NO_PIXELS,
        "no-rows.dcm": Reason.NO_PIXELS,
        "no-age.dcm": Reason.NO_AGE,
        "born-later.dcm": Reason.IMPLAUSIBLE_AGE,
        "age-340.dcm": Reason.IMPLAUSIBLE_AGE,
        "no-patient.dcm": Reason.NO_PATIENT_ID,
        "no-uid.dcm": Reason.NO_IDENTITY,
        "unknown-syntax.dcm": Reason.UNSUPPORTED_TRANSFER_SYNTAX,
        "too-large.dcm": Reason.TOO_LARGE,
        "gone.dcm": Reason.UNREADABLE,
    }
    (tmp_path / "text.dcm").write_text("Patient: somebody\n" * 40)
    (tmp_path / "empty.dcm").touch()
    write_without_pixels(tmp_path / "no-pixels.dcm")
    write(tmp_path / "no-rows.dcm", Rows=None)
    write(tmp_path / "no-age.dcm", PatientBirthDate=None)
    write(tmp_path / "born-later.dcm", PatientBirthDate="20300101")
    write(tmp_path / "age-340.dcm", PatientBirthDate=None, PatientAge="340Y")
    write(tmp_path / "no-patient.dcm", "   ")
    write(tmp_path / "no-uid.dcm", SOPInstanceUID=None)
    write(tmp_path / "rle.dcm", syntax=RLELossless)
    unknown = (tmp_path / "rle.dcm").read_bytes().replace(RLELossless.encode(), b"1.2.840.10008.1.2.9")
    (tmp_path / "unknown-syntax.dcm").write_bytes(unknown)
    write(tmp_path / "too-large.dcm", Rows=65535, Columns=65535)
    assert {name: code(tmp_path / name) for name in bad} == bad
    for reason in Reason:
        assert reason.description
        assert reason.remedy


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
def test_a_file_cut_anywhere_is_never_taken_for_whole(tmp_path: Path, syntax: str) -> None:
    path = tmp_path / "a.dcm"
    write(path, "P1", syntax=syntax)
    whole = path.read_bytes()
    start = whole.index(b"\x7f\xe0\x00\x10" if syntax == ExplicitVRBigEndian else b"\xe0\x7f\x10\x00")
    for size in range(len(whole) - 1, 131, -1):
        os.truncate(path, size)
        found = read_facts(path)
        assert isinstance(found, Rejected), size
        if size > start + 12:
            assert found.code is Reason.TRUNCATED, size
    path.write_bytes(whole)
    assert isinstance(read_facts(path), DicomFacts)


def test_pixels_shorter_than_rows_and_columns_say_are_truncated(tmp_path: Path) -> None:
    write(tmp_path / "a.dcm", Rows=7)  # the element is whole, but a row short
    write(tmp_path / "b.dcm", NumberOfFrames=2)
    write(tmp_path / "c.dcm")
    cut(tmp_path / "c.dcm", bytes_off=2)
    assert {code(tmp_path / name) for name in ("a.dcm", "b.dcm", "c.dcm")} == {Reason.TRUNCATED}


def test_hostile_headers_end_in_a_reason(tmp_path: Path) -> None:
    write(tmp_path / "a.dcm")
    head = (tmp_path / "a.dcm").read_bytes()[:132]
    meta = b"\x02\x00\x10\x00UI\x14\x001.2.840.10008.1.2.1\x00"
    nested = b"\x08\x00\x40\x11SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    for name, body in {
        "deep": nested * 5000,
        "long": b"\x10\x00\x20\x00UT\x00\x00\xfe\xff\xff\xff" + b"x" * 50,
        "endless": b"\x10\x00\x20\x00LO\xff\xff" + b"x" * 50,
        "noise": np.random.default_rng(5).bytes(4000),
        "undefined": b"\x10\x00\x20\x00LO\x00\x00\x08\x00\x05\x00CS\x02\x00\xff\xff",
    }.items():
        (tmp_path / name).write_bytes(head + meta + body)
        assert isinstance(read_facts(tmp_path / name), Rejected), name
    rng = np.random.default_rng(7)
    whole = np.frombuffer((tmp_path / "a.dcm").read_bytes(), dtype=np.uint8)
    for _ in range(300):
        damaged = whole.copy()
        damaged[rng.integers(132, whole.size, 3)] = rng.integers(0, 256, 3)
        (tmp_path / "b.dcm").write_bytes(damaged.tobytes())
        assert isinstance(read_facts(tmp_path / "b.dcm"), DicomFacts | Rejected)


def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.dcm")
    assert code(tmp_path / "a.dcm") is Reason.UNREADABLE


def test_pydicom_agrees_on_all_of_its_own_files(caplog: pytest.LogCaptureFixture) -> None:
    """Every file goes in or out with a reason; what goes in holds what pydicom reads there."""
    caplog.set_level(logging.DEBUG)
    # Only the files that come with the package: asking pydicom for all of them would download the rest.
    folder = Path(pydicom.data.__file__).parent / "test_files"
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    taken = 0
    for path in paths:
        found = read_facts(path)
        if isinstance(found, Rejected):
            continue
        taken += 1
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        assert found.patient_id == str(ds.PatientID).strip()
        assert (found.rows, found.columns, found.sop_uid) == (ds.Rows, ds.Columns, ds.SOPInstanceUID)
        assert found.modality == ds.Modality
        assert found.transfer_syntax == ds.file_meta.TransferSyntaxUID
    assert len(paths) > 60
    assert taken > 15
    assert not caplog.records


def test_facts_do_not_show_who_it_is(tmp_path: Path) -> None:
    ds = write(tmp_path / "a.dcm", pixels=ramp())
    shown = repr(facts(tmp_path / "a.dcm"))
    for secret in (
        ds.PatientID,
        ds.SOPInstanceUID,
        ds.StudyInstanceUID,
        BIRTH_DATE,
        NAME,
        str(date(2021, 3, 17).toordinal()),
    ):
        assert secret not in shown


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"LongitudinalTemporalInformationModified": "MODIFIED", "PatientAge": "068Y"}, 68.5),
        ({"LongitudinalTemporalInformationModified": "REMOVED", "PatientAge": "068Y"}, 68.5),
        ({"LongitudinalTemporalInformationModified": "MODIFIED"}, Reason.UNRELIABLE_DATES),
        ({"LongitudinalTemporalInformationModified": "UNMODIFIED"}, 60.0),
        ({"LongitudinalTemporalInformationModified": "UNMODIFIED", "PatientAge": "068Y"}, Reason.CONTRADICTORY_AGE),
        ({"PatientAge": "068Y"}, Reason.CONTRADICTORY_AGE),
        ({"PatientBirthDate": "19000101", "PatientAge": "045Y"}, 45.5),
        ({"PatientBirthDate": "20210317", "PatientAge": "045Y"}, 45.5),
        ({"StudyDate": "20990317", "PatientAge": "045Y"}, 45.5),
        ({"AcquisitionDate": "20090317"}, Reason.UNRELIABLE_DATES),
        ({"AcquisitionDate": "20090317", "PatientAge": "048Y"}, 48.5),
        ({"SeriesDate": "20490317", "PatientAge": "060Y"}, 60.5),
        ({"SeriesDate": "20210401", "AcquisitionDate": "20210318"}, 60.0),
        ({"ContentDate": "20490317"}, 60.0),  # of a rendering, perhaps; other dates say when the exam was
    ],
)
def test_dates_and_patient_age_together(tmp_path: Path, elements: dict[str, str], expected: float | Reason) -> None:
    write(tmp_path / "a.dcm", **elements)
    found = read_facts(tmp_path / "a.dcm")
    if isinstance(expected, Reason):
        assert isinstance(found, Rejected)
        assert found.code is expected
    else:
        assert isinstance(found, DicomFacts)
        assert found.age.years == pytest.approx(expected, abs=0.001)
