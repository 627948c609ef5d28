"""A bundle made the whole way in this process: a simulated run on three hospitals' tables, exported and signed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fedage.common.bundle.description import Description, Origin, TrainedOn
from fedage.common.bundle.fits import fields_of
from fedage.common.estimators import make
from fedage.common.protocol.messages import payload_digest
from fedage.server.campaign.export import export_bundle
from tests.deploy.simulating import Simulated, as_csv, simulated

HOSPITALS = ("north", "south", "west")
RIDGE = """
[campaign]
name = "thickness"
purpose = "Age from four regional measures at three hospitals"
seed = 1
[estimator]
name = "table-ridge"
[estimator.options]
features = ["region_*"]
exclude = ["region_x"]
age_scale = "linear"
[table]
id = "subject"
age = "age"
sex = "sex"
missing = [-9999]
[validation.fractions]
train = 0.5
validation = 0.25
test = 0.25
"""


def patients(hospitals: tuple[str, ...] = HOSPITALS, *, n: int = 400, seed: int = 4) -> pd.DataFrame:
    """Measures that fall with age, n patients of each hospital, another scanner each."""
    rng = np.random.default_rng(seed)
    tables = []
    for number, hospital in enumerate(hospitals):
        age = rng.uniform(20, 80, n).round(1)
        measures = {f"region_{k}": 3 - 0.02 * age + 0.02 * number + rng.normal(0, 0.2, n) for k in "abcd"}
        ids = [f"{hospital}-{row:03d}" for row in range(n)]
        sex = np.where(rng.random(n) < 0.5, "M", "F")
        tables.append(pd.DataFrame({"subject": ids, "hospital": hospital, "age": age, "sex": sex, **measures}))
    return pd.concat(tables, ignore_index=True).assign(region_x=0.5)


@dataclass(frozen=True)
class Exported:
    """A finished run, its bundle's bytes and file, and the key that signed it."""

    run: Simulated
    content: bytes
    file: Path
    key: Ed25519PrivateKey
    public: Path


def exported(folder: Path, text: str = RIDGE, *, table: pd.DataFrame | None = None) -> Exported:
    run = ran(folder, text, table=table)
    key = Ed25519PrivateKey.generate()
    content, _ = export_bundle(run.folder, key=key)
    file, public = folder / "model.fedage", folder / "coordinator.pub"
    file.write_bytes(content)
    public.write_bytes(public_key(key))
    return Exported(run, content, file, key, public)


def public_key(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def ran(folder: Path, text: str = RIDGE, *, table: pd.DataFrame | None = None) -> Simulated:
    data = as_csv(patients() if table is None else table, folder / "table.csv")
    return simulated(folder / "run", text, data=data, site_column="hospital")


def described(estimator: str, options: Mapping[str, Any], weights: Mapping[str, Any], **changes: Any) -> Description:
    """A description of arrays that no campaign made."""
    origin = Origin(
        campaign="c", purpose="of a test", digest="0" * 64, run="r", environment="simulation", guard=True, phantoms=True
    )
    made = make(estimator, options).for_table(list(options.get("features", ())))
    values: dict[str, Any] = {
        "fedage_version": "0.1.0",
        "origin": origin,
        **fields_of(made, options),
        "trained_on": TrainedOn(sites={"harbour": 40}, age_limits_years=(0.0, 130.0)),
        "weights_sha256": payload_digest(weights),
        "card": "",
    }
    return Description.model_validate(values | changes)
