"""What indexing costs beside bare reading: `python tests/bench/bench_index.py [--files 5000] [--repeats 5]`.

A folder of chest radiographs with headers as scanners write them (about 110 elements, sequences, private ones) is read
alternately by a bare loop of pydicom in one thread, which stops before the pixels and keeps nothing, and by the index,
its database included, each time into a fresh store; then the same store is indexed again with nothing changed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from fedage.client.cohort.indexing.index import index_folder
from fedage.client.cohort.store.store import CohortStore

WANTED_READING, WANTED_AGAIN = 1.2, 20.0


def radiograph() -> Dataset:
    """One file; the patient's number and the UIDs are of fixed length, to be replaced."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = DigitalXRayImageStorageForPresentation
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = "1.2.826.0.1.3680043.8.498.1000000"
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.ImplementationClassUID = generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.826.0.1.3680043.8.498.2000000", generate_uid()
    ds.PatientID, ds.PatientName, ds.PatientSex, ds.PatientBirthDate = "MRN-3000000", "Nobody^Else", "F", "19610317"
    ds.PatientAge, ds.PatientSize, ds.PatientWeight, ds.PatientComments = "060Y", 1.7, 70, "rendered"
    ds.ImageType, ds.InstanceCreationDate = ["DERIVED", "PRIMARY"], "20210317"
    for keyword in ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"):
        setattr(ds, keyword, "20210317")
        setattr(ds, keyword.replace("Date", "Time"), "101112.131")
    ds.AccessionNumber, ds.Modality, ds.Manufacturer = "A0000001", "DX", "Phantom Imaging"
    ds.InstitutionName, ds.InstitutionAddress = "Nowhere Hospital", "1 Nowhere Street"
    ds.ReferringPhysicianName, ds.OperatorsName, ds.PerformingPhysicianName = "A^B", "C^D", "E^F"
    ds.StationName, ds.StudyDescription, ds.SeriesDescription = "ROOM1", "CHEST 2 VIEWS", "PA"
    ds.ManufacturerModelName, ds.BodyPartExamined, ds.KVP = "PI-1", "CHEST", 120
    ds.DeviceSerialNumber, ds.SoftwareVersions, ds.ProtocolName = "123456", ["1.0", "2.0"], "Chest PA"
    ds.DistanceSourceToDetector, ds.ExposureTime, ds.XRayTubeCurrent, ds.Exposure = 1800, 10, 320, 3
    ds.FilterType, ds.Grid, ds.FocalSpots, ds.ViewPosition = "NONE", "IN", 1.2, "PA"
    ds.DetectorType, ds.DetectorID, ds.DetectorTemperature, ds.Sensitivity = "SCINTILLATOR", "D1", 30, 400
    ds.StudyID, ds.SeriesNumber, ds.AcquisitionNumber, ds.InstanceNumber = "1", 1, 1, 1
    ds.PatientOrientation, ds.ImageLaterality, ds.ImageComments = ["L", "F"], "U", "rendered"
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.Rows = ds.Columns = 64
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.ImagerPixelSpacing, ds.PixelSpacing, ds.BurnedInAnnotation, ds.LossyImageCompression = (
        [0.2, 0.2],
        [0.2, 0.2],
        "NO",
        "00",
    )
    ds.WindowCenter, ds.WindowWidth, ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 2048, 4096, 0, 1, "US"
    ds.RequestingPhysician, ds.RequestedProcedureDescription = "G^H", "CHEST"
    ds.PerformedProcedureStepStartDate, ds.PerformedProcedureStepID = "20210317", "P1"
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "399348003", "SCT", "antero-posterior"
    region = Dataset()
    region.CodeValue, region.CodingSchemeDesignator, region.CodeMeaning = "51185008", "SCT", "Chest"
    ds.ViewCodeSequence, ds.AnatomicRegionSequence, ds.ProcedureCodeSequence = [code], [region], [code, region]
    block = ds.private_block(0x0019, "PHANTOM IMAGING 1.0", create=True)
    for element in range(30):
        block.add_new(element, "LO", f"value {element}")
    ds.PixelData = np.zeros((64, 64), dtype=np.uint16).tobytes()
    ds["PixelData"].VR = "OW"
    return ds


def make(folder: Path, *, files: int, per_folder: int) -> None:
    """A folder an exam, so many images in each."""
    pattern = folder / "pattern"
    radiograph().save_as(pattern, enforce_file_format=True)
    content = pattern.read_bytes()
    pattern.unlink()
    for number in range(files):
        path = folder / f"S{number // per_folder:06d}" / f"I{number:06d}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        numbers = {b"498.1000000": 1_000_000 + number, b"498.2000000": 2_000_000 + number // per_folder}
        own = content.replace(b"MRN-3000000", f"MRN-{3_000_000 + number // per_folder}".encode())
        for text, value in numbers.items():
            own = own.replace(text, f"498.{value}".encode())
        path.write_bytes(own)


def bare_loop(folder: Path) -> int:
    """Every header, in one thread, nothing kept."""
    read = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            ds = pydicom.dcmread(f"{parent}/{name}", stop_before_pixels=True)
            read += ds.PatientID != ""
    return read


def seconds(call: Callable[[], object]) -> float:
    """Wall clock of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--per-folder", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    loops, indexes, agains = [], [], []
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch, "data")
        data.mkdir()
        make(data, files=arguments.files, per_folder=arguments.per_folder)
        bare_loop(data)  # the files are in the page cache from here on, for both
        for repeat in range(arguments.repeats):
            loops.append(seconds(lambda: bare_loop(data)))
            with CohortStore.open(Path(scratch, f"home-{repeat}")) as store:
                indexes.append(seconds(lambda: index_folder(store, data)))
                if store.counts()["images"] != arguments.files:
                    raise SystemExit("not every file came in")
                agains.append(seconds(lambda: index_folder(store, data)))
    loop, index, again = (statistics.median(times) for times in (loops, indexes, agains))
    print(f"{arguments.files} files, {arguments.per_folder} a folder, medians of {arguments.repeats} alternating runs")
    print(f"bare pydicom loop, one thread   {loop:8.3f} s")
    print(f"index, database included        {index:8.3f} s   {loop / index:5.2f} x the loop (wanted {WANTED_READING})")
    print(f"index again, nothing changed    {again:8.3f} s   {index / again:5.1f} x the first (wanted {WANTED_AGAIN})")


if __name__ == "__main__":
    main()
