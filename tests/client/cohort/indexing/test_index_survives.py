"""An indexing that is killed, and one whose disk is full: nothing is lost, and a clear line says what to do."""

import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from fedage.client.cohort.indexing.index import index_folder
from fedage.client.cohort.store.query import select
from fedage.client.cohort.store.store import CohortStore
from tests.client.cohort.dicoms import write

ROOT = Path(__file__).parents[4]


def child(script: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(script), *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for number in range(60):
        write(tmp_path / "data" / f"{number:02d}.dcm", f"p{number}")
    return tmp_path / "data"


def whole(home: Path) -> bool:
    with sqlite3.connect(home / "cohort.db") as connection:
        said = connection.execute("PRAGMA integrity_check").fetchone()
        orphans = connection.execute("PRAGMA foreign_key_check").fetchall()
    connection.close()
    return said == ("ok",) and not orphans


INDEX_SLOWLY = """
    import sys, time
    from pathlib import Path
    from fedage.client.cohort.indexing import index
    from fedage.client.cohort.store.store import CohortStore
    index._BATCH, index._CHUNK = 5, 1
    def tell(done, total):
        print(done, flush=True)
        time.sleep(0.02)
    with CohortStore.open(Path(sys.argv[1])) as store:
        index.index_folder(store, Path(sys.argv[2]), progress=tell)
"""


def test_killed_in_the_middle_it_goes_on_where_it_stopped(tmp_path: Path, data: Path) -> None:
    home = tmp_path / "home"
    for stop_at in (12, 3):
        running = child(INDEX_SLOWLY, str(home), str(data))
        assert running.stdout is not None
        while int(running.stdout.readline()) < stop_at:
            pass
        running.send_signal(signal.SIGKILL)
        running.wait()
        running.communicate()
        assert whole(home)
    with CohortStore.open(home) as store:
        before = store.counts()["images"]
        assert 10 <= before < 60
        report = index_folder(store, data)
        assert (report.files, report.new, report.unchanged, report.images) == (60, 60 - before, before, 60)
        assert select(store, modalities=(), age_min_years=0, age_max_years=130).n == 60
        assert index_folder(store, data).unchanged == 60
    assert whole(home)


INDEX_ON_A_FULL_DISK = """
    import resource, signal, sys
    from pathlib import Path
    from fedage.client.cohort.indexing import index
    from fedage.client.cohort.store.store import CohortStore
    from fedage.common.errors import FedAgeError
    index._BATCH = 10
    with CohortStore.open(Path(sys.argv[1])) as store:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        # No file may grow further: a write then fails as on a full disk.
        room = int(sys.argv[3])
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        try:
            index.index_folder(store, Path(sys.argv[2]))
        except FedAgeError as error:
            print(error)
"""


@pytest.mark.parametrize("room", [4_000, 150_000])
def test_a_full_disk_has_a_clear_line_and_loses_nothing(tmp_path: Path, data: Path, room: int) -> None:
    home, later = tmp_path / "home", tmp_path / "later"
    later.mkdir()
    for number in range(3, 60):
        (data / f"{number:02d}.dcm").rename(later / f"{number:02d}.dcm")
    with CohortStore.open(home) as store:
        index_folder(store, data)
        keys = select(store, modalities=(), age_min_years=0, age_max_years=130).keys
    for file in sorted(later.iterdir()):
        file.rename(data / file.name)
    running = child(INDEX_ON_A_FULL_DISK, str(home), str(data), str(room))
    said, wrong = running.communicate(timeout=60)
    assert "disk" in said, wrong[-800:]
    assert "full" in said
    assert "Traceback" not in wrong
    assert whole(home)
    with CohortStore.open(home) as store:
        now = select(store, modalities=(), age_min_years=0, age_max_years=130).keys
        assert set(keys) <= set(now)
        assert len(now) < 60
        report = index_folder(store, data)
        assert (report.files, report.images) == (60, 60)
