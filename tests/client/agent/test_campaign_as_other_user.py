"""A whole campaign whose relays run as another OS user, who can open neither an image nor a file of the agent."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from fedage.client.agent.status import site_status
from fedage.client.home import SiteHome
from fedage.deploy.demo import run as demo
from fedage.deploy.demo.campaign import campaign_file
from fedage.deploy.demo.hospitals import HOSPITALS
from fedage.deploy.demo.phantoms import render_all
from fedage.server.results import read_results
from tests.client.agent.other_user import (
    OTHER,
    as_other,
    environment_for,
    interpreter_for_all,
    needs_another_user,
    open_folder,
)

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(600)]

OPEN_ALL = """
import sys
from pathlib import Path
opened = []
for path in map(Path, sys.argv[1:]):
    try:
        list(path.iterdir()) if path.is_dir() else path.open("rb").close()
        opened.append(str(path))
    except PermissionError:
        pass
sys.exit(f"opened {opened}" if opened else 0)
"""


def test_a_campaign_passes_and_the_relays_user_can_open_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    needs_another_user()
    hospitals = HOSPITALS[:2]
    names = [hospital.name for hospital in hospitals]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with open_folder() as root, ExitStack() as running:
        interpreter = interpreter_for_all(root)
        monkeypatch.setenv("LD_LIBRARY_PATH", environment_for(interpreter).get("LD_LIBRARY_PATH", ""))
        folders = demo.Folders(root)
        planted = render_all(folders.images, seed=5, patients_per_site=40, hospitals=hospitals)
        folders.images.chmod(0o700)
        text = campaign_file(planted, sites=names, seed=5, quick=True)
        text = re.sub(r"(?m)^rounds = .*$", "rounds = 1", text)
        text = re.sub(r"(?m)^local_epochs = .*$", "local_epochs = 1", text)
        campaign = root / "campaign.toml"
        campaign.write_text(text, encoding="utf-8")
        demo._fedage("coordinator", "init", "--home", folders.coordinator, "--host", "localhost")
        address = running.enter_context(demo._coordinator(folders))
        for name in names:
            demo._prepare_site(folders, name, address=address, seed=5, campaign=campaign, quick=True)
            file = folders.site(name) / "site.toml"
            file.write_text(file.read_text().replace("# relay_user =", f'relay_user = "{OTHER}"'))
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", str(interpreter))
            for name in names:
                running.enter_context(demo._site(folders, name))
        command = ["campaign", "run", campaign, "--home", folders.coordinator, "--out", root, "--name", "run"]
        done = subprocess.run(demo._command(command), capture_output=True, text=True, timeout=400, check=False)
        logs = "".join(file.read_text() for file in folders.logs.glob("*.log"))
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:] + logs[-2000:]
        results = read_results(root / "results.json")
        assert results.run.status == "finished"
        assert [site.status for site in results.sites] == ["took part"] * 2

        private = [folders.images, *folders.images.rglob("*.dcm"), *folders.images.rglob("*.csv")]
        for name in names:
            private += [path for path in folders.site(name).rglob("*") if not path.is_socket()]
        assert len(private) > 80
        asked = [str(interpreter), "-c", OPEN_ALL, *map(str, private)]
        done = as_other(asked, environment=environment_for(interpreter))
        assert done.returncode == 0, done.stderr
        for name in names:
            said = "\n".join(site_status(SiteHome.load(folders.site(name))))
            assert "agent: healthy, FedAge" in said
            assert f"node: online, Flower's SuperNode for {address}" in said
            assert f"as {OTHER}" in said
            assert _users_of(folders.site(name).with_name(f"{name}-relay")) == {pwd.getpwnam(OTHER).pw_uid}


def _users_of(relay_folder: Path) -> set[int]:
    """Whom the processes belong to that name the relay's node key or its secret."""
    users = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            told = (entry / "cmdline").read_bytes()
            if os.fsencode(relay_folder) + b"/node.key" in told or os.fsencode(relay_folder) + b"/run/" in told:
                users.add(entry.stat().st_uid)
        except OSError:
            continue
    return users
