"""A bundle of an estimator on images: folders, single files, what a site has indexed, and exams of another kind."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedage.client.prediction.run import predict
from fedage.common.bundle.container import write_bundle
from fedage.common.bundle.description import Line
from fedage.common.errors import FedAgeError
from fedage.common.estimators import make
from fedage.deploy.demo.hospitals import HOSPITALS
from fedage.deploy.demo.phantoms import render_hospital
from tests.client.hospital import Template
from tests.of_bundles import described, public_key
from tests.of_estimators import built

OPTIONS = {"image_size": 64, "width": 8}
LINE = Line(slope=0.5, intercept_years=30.0, n=20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    render_hospital(HOSPITALS[0], out_dir=folder / "data", seed=6, patients=4)
    write_images_bundle(folder / "model.fedage", Ed25519PrivateKey.from_private_bytes(bytes(32)), folder / "key.pub")
    return folder


def write_images_bundle(file: Path, key: Ed25519PrivateKey, public: Path) -> None:
    weights = built(make("chest-ca", OPTIONS), seed=3)
    file.write_bytes(write_bundle(described("chest-ca", OPTIONS, weights, lines={"harbour": LINE}), weights, key=key))
    public.write_bytes(public_key(key))


@pytest.mark.slow
def test_a_folder_and_each_of_its_files_give_the_same_ages(folder: Path, tmp_path: Path) -> None:
    images = folder / "data" / "images"
    done = predict(folder / "model.fedage", data=images, key=folder / "key.pub", out=tmp_path / "all.csv", device="cpu")
    table = pd.read_csv(done.file).set_index("exam")
    assert table["predicted_years"].between(0, 130).all()
    assert table["age_years"].notna().all()
    done = predict(
        folder / "model.fedage", data=images, key=folder / "key.pub", out=tmp_path / "all.csv", maps=tmp_path / "m.npz"
    )
    assert (tmp_path / "m.npz").stat().st_mode & 0o077 == 0
    with np.load(tmp_path / "m.npz") as maps:
        assert maps["exam"].tolist() == pd.read_csv(done.file)["exam"].tolist()
        assert maps["image"].shape == (len(table), 8, 8)
        np.testing.assert_allclose(maps["image"].sum(axis=(1, 2)), 1, rtol=1e-9)
    assert any("no bias line" in line for line in done.said)  # the line of another site is no line of this one
    path = str(table.index[0])
    one = predict(
        folder / "model.fedage", data=images / path, key=folder / "key.pub", out=tmp_path / "one.csv", line="harbour"
    )
    row = pd.read_csv(one.file).iloc[0]
    assert row["exam"] == Path(path).name
    assert row["predicted_years"] == pytest.approx(table.loc[path, "predicted_years"], abs=1e-3)
    assert row["gap_years"] == pytest.approx(row["predicted_years"] - (0.5 * row["age_years"] + 30), abs=1e-3)
    assert not list(tmp_path.glob("*.partial"))


def test_a_site_predicts_what_it_has_indexed_into_its_own_folder(template: Template, tmp_path: Path) -> None:
    shutil.copytree(template.folder / "home", tmp_path / "home")
    write_images_bundle(tmp_path / "model.fedage", template.key, tmp_path / "key.pub")
    before = {path for path in (tmp_path / "home").rglob("*") if path.is_file()}
    done = predict(tmp_path / "model.fedage", home=tmp_path / "home", device="cpu")
    table = pd.read_csv(done.file)
    assert done.file.parent == tmp_path / "home" / "predictions"
    assert done.file.parent.stat().st_mode & 0o077 == 0
    assert len(table) > 20
    np.testing.assert_allclose(
        table["corrected_years"], table["age_years"] + table["predicted_years"] - (0.5 * table["age_years"] + 30),
        atol=1e-3,
    )  # fmt: skip
    new = {path for path in (tmp_path / "home").rglob("*") if path.is_file()} - before
    assert {path for path in new if "cache" not in path.parts} == {done.file}
    write_images_bundle(tmp_path / "foreign.fedage", Ed25519PrivateKey.generate(), tmp_path / "key.pub")
    with pytest.raises(FedAgeError, match="signed by a key that is not trusted"):
        predict(tmp_path / "foreign.fedage", home=tmp_path / "home")


def test_exams_of_another_kind_are_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "note.txt").write_text("no image")
    (tmp_path / "table.csv").write_text("region_a\n1\n")
    (tmp_path / "brain.nii.gz").write_bytes(b"\x1f\x8b")
    (tmp_path / "empty").mkdir()
    for name, words in (
        (
            "text",
            "can predict; it needs image \\(an image\\) of modality CR or DX; set aside: 1 ",
        ),
        ("empty", "no exam that chest-ca can predict"),
        ("table.csv", "is a table, and the bundle's chest-ca takes images"),
        ("brain.nii.gz", "is one volume, and chest-ca needs image \\(an image\\)"),
    ):
        with pytest.raises(FedAgeError, match=words) as refused:
            predict(folder / "model.fedage", data=tmp_path / name, key=folder / "key.pub", out=tmp_path / "out.csv")
        assert "\n" not in str(refused.value)
    assert not (tmp_path / "out.csv").exists()
