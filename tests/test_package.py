"""The installed package: every folder is in the wheel, markers and data files are there, nothing happens on import."""

import subprocess
import sys
import tomllib
import zipfile
from importlib import resources
from importlib.metadata import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("common", "client", "server", "deploy")


def folders_with_code() -> set[str]:
    found = set()
    for part in PARTS:
        for init in (ROOT / part).rglob("__init__.py"):
            found.add(installed(init.parent).replace("/", "."))
    return found


def installed(path: Path) -> str:
    """Where a file or folder of the repository lies once it is installed: `deploy/api` is the package itself."""
    inside = "fedage/" + path.relative_to(ROOT).as_posix()
    return inside.replace("fedage/deploy/api", "fedage")


def test_packages_list_is_complete() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert set(listed) == folders_with_code()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    tree = tmp_path_factory.mktemp("tree") / "fedage"
    # A copy, so that no build folder appears in the checkout.
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for name in listed:
        source = ROOT / name
        if source.is_file():
            target = tree / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "--wheel-dir", str(out), str(tree)], check=True
    )
    return next(out.glob("*.whl"))


@pytest.mark.slow  # built by `.ci/run` each time
def test_wheel_has_every_module_and_data_file(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for part in PARTS:
        for source in (ROOT / part).rglob("*"):
            if source.suffix in {".py", ".typed", ".j2", ".css"} or (source.suffix == ".json" and part == "server"):
                assert installed(source) in names, f"{installed(source)} is not in the wheel"
    assert not any(name.split("/")[0] in PARTS for name in names), "a bare 'common' would land in site-packages"


def test_installed_package_is_typed_and_licensed() -> None:
    for package in ("fedage", *(f"fedage.{part}" for part in PARTS)):
        assert (resources.files(package) / "py.typed").is_file()
    assert metadata("fedage")["License-Expression"] == "Apache-2.0"


def test_importing_is_quiet_and_light() -> None:
    code = (
        "import sys, warnings; warnings.simplefilter('error');"
        "import fedage.common.campaign, fedage.common.statistics.statistic, fedage.common.protocol.messages;"
        "assert 'torch' not in sys.modules and 'flwr' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT.parent)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_command_line_lists_its_groups() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fedage.deploy", "--help"], capture_output=True, text=True, check=True, cwd=ROOT.parent
    )
    for group in ("demo", "coordinator", "campaign", "site"):
        assert group in done.stdout
