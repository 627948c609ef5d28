"""DICOM headers: what an image is of, of whom, and why a file is out."""
