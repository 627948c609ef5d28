"""Every file that pydicom ships for its own tests, the whole way: index, selection, samples; in, or out with a reason.

Only what comes with the package: asking pydicom for all of its files would download the rest.
"""

import logging
from pathlib import Path
from typing import ClassVar

import numpy as np
import pydicom.data
import pytest
from numpy.typing import NDArray

from fedage.client.cohort.decoding.images import load_image
from fedage.client.cohort.dicom.facts import DicomFacts, read_facts
from fedage.client.cohort.indexing.index import index_folder
from fedage.client.cohort.samples.cache import SampleCache
from fedage.client.cohort.store.query import select
from fedage.client.cohort.store.store import CohortStore
from fedage.common import estimators
from fedage.common.estimators.base import Input
from fedage.common.estimators.takes import Takes
from fedage.common.preprocessing.image import Exam, SampleRefused

FOLDER = Path(pydicom.data.__file__).parent / "test_files"
EXPECTED = {
    "colour": """
        ExplVR_BigEnd.dcm GDCMJ2K_TextGBR.dcm SC_jpeg_no_color_transform.dcm SC_jpeg_no_color_transform_2.dcm
        SC_rgb_dcmtk_+eb+cr.dcm SC_rgb_dcmtk_+eb+cy+n1.dcm SC_rgb_dcmtk_+eb+cy+n2.dcm SC_rgb_dcmtk_+eb+cy+np.dcm
        SC_rgb_dcmtk_+eb+cy+s2.dcm SC_rgb_dcmtk_+eb+cy+s4.dcm SC_rgb_gdcm_KY.dcm SC_rgb_jls_lossy_line.dcm
        SC_rgb_jls_lossy_sample.dcm SC_rgb_jpeg.dcm SC_rgb_jpeg_app14_dcmd.dcm SC_rgb_jpeg_dcmd.dcm
        SC_rgb_jpeg_dcmtk.dcm SC_rgb_jpeg_gdcm.dcm SC_rgb_jpeg_lossy_gdcm.dcm SC_rgb_rle.dcm SC_rgb_rle_16bit.dcm
        SC_rgb_rle_16bit_2frame.dcm SC_rgb_rle_2frame.dcm SC_rgb_rle_32bit.dcm SC_rgb_rle_32bit_2frame.dcm
        SC_rgb_small_odd.dcm SC_rgb_small_odd_big_endian.dcm SC_rgb_small_odd_jpeg.dcm
        SC_ybr_full_422_uncompressed.dcm examples_jpeg2k.dcm examples_palette.dcm examples_rgb_color.dcm
        examples_ybr_color.dcm""",
    "derived-object": """
        badVR.dcm liver_1frame.dcm liver_expb_1frame.dcm rtdose.dcm rtdose_1frame.dcm rtdose_expb.dcm
        rtdose_expb_1frame.dcm rtdose_rle.dcm rtdose_rle_1frame.dcm""",
    "dicomdir": """
        dicomdirtests/DICOMDIR dicomdirtests/DICOMDIR-bigEnd dicomdirtests/DICOMDIR-empty.dcm
        dicomdirtests/DICOMDIR-implicit dicomdirtests/DICOMDIR-nooffset dicomdirtests/DICOMDIR-nopatient
        dicomdirtests/DICOMDIR-reordered dicomdirtests/TINY_ALPHA/DICOMDIR""",
    # examples_overlay.dcm: born 1111-11-11, 058Y
    "in": """
        J2K_pixelrep_mismatch.dcm dicomdirtests/77654033 dicomdirtests/98892001 dicomdirtests/98892003
        examples_overlay.dcm""",
    "no-age": """
        693_J2KI.dcm JPEG2000-embedded-sequence-delimiter.dcm JPEG2000.dcm MR_small.dcm MR_small_RLE.dcm
        MR_small_bigendian.dcm MR_small_expb.dcm MR_small_implicit.dcm MR_small_jp2klossless.dcm
        MR_small_jpeg_ls_lossless.dcm MR_small_padded.dcm""",
    "no-patient-id": "JPEGLSNearLossless_08.dcm JPEGLSNearLossless_16.dcm image_dfl.dcm",
    "no-pixels": """
        UN_sequence.dcm dicomdirtests/TINY_ALPHA/PT000000 empty_charset_LEI.dcm meta_missing_tsyntax.dcm
        nested_priv_SQ.dcm priv_SQ.dcm""",
    "not-an-image": """
        ExplVR_BigEndNoMeta.dcm ExplVR_LitEndNoMeta.dcm no_meta_group_length.dcm reportsi.dcm
        reportsi_with_empty_number_tags.dcm rtplan.dcm rtstruct.dcm test-SR.dcm waveform_ecg.dcm""",
    "not-dicom": """
        README.txt crayons.icc dicomdirtests/README.txt dicomdirtests/TINY_ALPHA/README no_meta.dcm rtplan.dump
        rtstruct.dump test1.json test_PN.json zipMR.gz""",
    "zero-age": "CT_small.dcm",  # 000Y, without dates that confirm it
    "unsupported-transfer-syntax": "JPEG-lossy.dcm JPGExtended.dcm",  # JPEG of 12 bits with losses
    "truncated": "MR_truncated.dcm rtplan_truncated.dcm",
}
"""Files, or folders of files, by what becomes of them with the decoders that the package asks for."""


class Whole:
    """A test estimator that takes every image: mean and spread of its pixels."""

    name: ClassVar[str] = "whole"

    inputs = (Input(name="image", rank=2),)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"image": (1, 1, 2)}

    def preprocess(self, exam: Exam) -> dict[str, NDArray[np.float32]]:
        pixels = exam["image"].pixels
        return {"image": np.array([[[pixels.mean(), pixels.std()]]], dtype=np.float32)}


def files() -> list[Path]:
    return [path for path in sorted(FOLDER.rglob("*")) if path.is_file()]


def expected(path: Path) -> str:
    name = path.relative_to(FOLDER).as_posix()
    (code,) = (code for code, names in EXPECTED.items() if any(f"{name}/".startswith(f"{at}/") for at in names.split()))
    return code


def test_each_is_in_or_out_with_the_reason_it_should_have() -> None:
    assert len(files()) == 176, "pydicom ships other files than those listed here: look at each, then list it"
    found = {path: read_facts(path) for path in files()}
    codes = {path: "in" if isinstance(fact, DicomFacts) else str(fact.code) for path, fact in found.items()}
    assert codes == {path: expected(path) for path in files()}


def test_all_of_them_go_the_whole_way(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG, logger="pydicom")
    taken = [path for path in files() if expected(path) == "in"]
    with CohortStore.open(tmp_path / "home") as store:
        report = index_folder(store, FOLDER)
        # Nothing is lost and nothing counted twice; the medium's CD of which only a part is shipped lacks files.
        missing = report.rejected.get("missing-file", 0)
        assert report.files == len(files()) + missing
        duplicates = report.rejected.get("duplicate-image", 0)
        of_series = sum(report.rejected.get(code, 0) for code in ("missing-slices", "mixed-orientation"))
        assert (report.volumes, of_series) == (1, 19)  # five CT slices; a CT with a gap, scouts, an angiogram
        assert report.images - report.volumes + 5 + of_series + duplicates == len(taken)
        whatever_it_is = Takes(special=frozenset(["localizer", "contrast-enhanced", "derived"]))
        selection = select(store, modalities=(), age_min_years=0, age_max_years=130, takes=whatever_it_is)
    assert selection.n == report.patients
    for estimator in (Whole(), estimators.make("chest-ca", {"image_size": 64})):
        made = SampleCache(tmp_path / "cache", root=FOLDER).build(selection, estimator)  # type: ignore[arg-type]
        assert np.isfinite(made.samples["image"]).all()
        assert made.selection.n == len(made.samples["image"])
        if isinstance(estimator, Whole):
            # the only patient whose every image is a volume, which no estimator reads
            assert (made.selection.n, dict(made.rejected)) == (selection.n - 1, {"multi-frame": 1})
    assert not [record for record in caplog.records if record.name.startswith("pydicom")]
    assert capfd.readouterr().err == ""


def test_every_one_decodes_or_is_refused_with_a_code() -> None:
    """Also those without an age or an identifier, which the index keeps out before their pixels are looked at."""
    codes = set()
    for path in files():
        try:
            image = load_image(path)
        except SampleRefused as refused:
            codes.add(refused.code)
            # the one whose JPEG 2000 stream is 266 bytes long, which only its decoder can notice
            whole = path.name != "JPEG2000-embedded-sequence-delimiter.dcm"
            assert not whole or expected(path) not in ("in", "no-age", "no-patient-id"), path
        else:
            assert image.pixels.ndim == 2
            assert np.isfinite(image.pixels).all()
    assert codes == {"undecodable", "colour", "multi-frame"}
