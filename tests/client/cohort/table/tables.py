"""Campaigns on tables, and a table read for one, as tests of values need them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from fedage.client.cohort.table.sites import SiteTables, read_site_tables
from fedage.common.campaign import Campaign
from fedage.common.campaign_file import parse_campaign

ABOUT = """
[campaign]
name = "tables"
purpose = "Try what a table may hold"
seed = 1
[table]
id = "who"
age = "age"
"""


FEATURES = """
[estimator]
name = "table-ridge"
[estimator.options]
features = ["thick", "area"]
"""


SURVIVAL = """
[survival]
time = "time"
event = "status"
[[survival.models]]
name = "area"
covariates = ["area"]
"""


def campaign(text: str = ABOUT + FEATURES) -> Campaign:
    return parse_campaign(text)


def read(frame: pd.DataFrame, folder: Path, text: str = ABOUT + FEATURES) -> SiteTables:
    frame.to_csv(folder / "t.csv", index=False)
    return read_site_tables(folder / "t.csv", campaign(text), site_column="site")


def in_parquet(frame: pd.DataFrame, folder: Path, text: str) -> SiteTables:
    plain = frame.astype({name: float for name in ("age", "other", "status") if name in frame})
    plain.to_parquet(folder / "t.parquet")
    return read_site_tables(folder / "t.parquet", campaign(text), site_column="site")
