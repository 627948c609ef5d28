"""Other OS users for tests that run as root, an interpreter that they may run, and a site as two services of theirs."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path

import pytest

OTHER = "nobody"
"""The relay's user."""
OWNER = "daemon"
"""The site's user: the agent's."""


def needs_another_user() -> None:
    """Skip where this process may not become somebody else."""
    if os.geteuid() != 0:
        pytest.skip("becoming another OS user takes root")
    try:
        pwd.getpwnam(OTHER), pwd.getpwnam(OWNER)
    except KeyError:
        pytest.skip(f"this machine has no user {OTHER} or {OWNER}")


def as_other(command: list[str], *, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command as the other user, with that user's own group only."""
    entry = pwd.getpwnam(OTHER)
    return subprocess.run(
        command,
        user=entry.pw_uid,
        group=entry.pw_gid,
        extra_groups=[],
        cwd="/",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def give_to_owner(*folders: Path) -> None:
    """Make the site's user own these folders and all in them."""
    entry = pwd.getpwnam(OWNER)
    for folder in folders:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)


@contextmanager
def running_as(
    user: str, command: list[str | Path], *, log: Path, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A service of a user, with that user's own group only; told to stop at the end."""
    entry = pwd.getpwnam(user)
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            user=entry.pw_uid,
            group=entry.pw_gid,
            extra_groups=[],
            cwd="/",
            env={**os.environ, "HOME": "/nonexistent", **environment},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(40)


@contextmanager
def open_folder() -> Iterator[Path]:
    """A temporary folder that others may pass through; pytest's own is for one user."""
    folder = Path(tempfile.mkdtemp(prefix="fedage-t-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def interpreter_for_all(folder: Path) -> Path:
    """This interpreter, or, where it lies in a private folder, a copy of it that sees the same packages."""
    try:
        if as_other([sys.executable, "-c", "import fedage.client.node.relay"]).returncode == 0:
            return Path(sys.executable)
    except PermissionError:
        pass
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    base, copy = Path(sys.base_prefix), folder / "python"
    unneeded = shutil.ignore_patterns("test", "__pycache__", "site-packages", "idlelib", "config-*", "tkinter")
    shutil.copytree(base / "lib" / version, copy / "lib" / version, ignore=unneeded, symlinks=True)
    for library in (base / "lib").glob("libpython*.so*"):
        shutil.copy2(library, copy / "lib" / library.name)
    (copy / "bin").mkdir()
    shutil.copy2(Path(sys.executable).resolve(), copy / "bin" / version)
    packages = sysconfig.get_path("purelib")
    site = copy / "lib" / version / "site-packages"
    site.mkdir()
    (site / "same.pth").write_text(f"import site; site.addsitedir({packages!r})\n")
    for entry in distribution("flwr").entry_points.select(group="console_scripts"):
        script = copy / "bin" / entry.name
        code = f"import sys; from {entry.module} import {entry.attr} as main; sys.exit(main())"
        script.write_text(f"#!{copy / 'bin' / version}\n{code}\n")
        script.chmod(0o755)
    interpreter = copy / "bin" / version
    found = as_other(
        [str(interpreter), "-c", "import fedage.client.node.relay"], environment={"LD_LIBRARY_PATH": str(copy / "lib")}
    )
    if found.returncode:
        pytest.skip(f"{OTHER} may not read this interpreter's packages: {found.stderr[-200:]}")
    return interpreter


def environment_for(interpreter: Path) -> dict[str, str]:
    """What the copied interpreter needs to find its library."""
    library = interpreter.parent.parent / "lib"
    return {"LD_LIBRARY_PATH": str(library)} if any(library.glob("libpython*")) else {}
