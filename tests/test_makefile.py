"""What make does with the Python that it finds: scripts that write down how they are called stand in for each."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make here")


def python(path: Path, *, old: bool = False, pip: bool = True) -> None:
    """Write a script in place of Python; an environment that it makes gets a copy of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"""#!/bin/sh
echo "$0 $*" >> calls
case "$*" in
  "-c "*) exit {int(old)} ;;
  "-m pip "*) test -e "$0.pip" || exit {int(not pip)} ;;
  "-m ensurepip "*) touch "$0.pip" ;;
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
esac
"""
    )
    path.chmod(0o755)


def setup(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy2(ROOT / name, folder)
    variables = {"PATH": f"{folder}/bin:/usr/bin:/bin", **environment}
    return subprocess.run(
        [str(shutil.which("make")), "setup"], cwd=folder, env=variables, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("there", ["nothing", "half made", "whole"])
def test_an_environment_without_pip_gets_it(tmp_path: Path, there: str) -> None:
    python(tmp_path / "bin/python3.11")
    if there != "nothing":
        python(tmp_path / ".venv/bin/python", pip=there == "whole")
    made = setup(tmp_path)
    assert made.returncode == 0, made.stdout + made.stderr
    calls = (tmp_path / "calls").read_text()
    assert (" -m venv .venv\n" in calls) is (there == "nothing")
    assert (" -m ensurepip " in calls) is (there == "half made")
    assert ".venv/bin/python -m pip install --quiet -c constraints.txt -e .[dev]" in calls
    assert setup(tmp_path).returncode == 0
    assert (tmp_path / "calls").read_text() == calls, "nothing is left to do"


@pytest.mark.parametrize(
    ("mine", "told"),
    [
        ({}, None),
        ({"old": True}, "needs Python 3.11 or newer, which {}/bin/python is not: activate an environment with a newer"),
        ({"pip": False}, "environment {} has no pip: type {}/bin/python -m ensurepip, or deactivate it"),
    ],
)
def test_the_activated_environment_is_what_counts(tmp_path: Path, mine: dict[str, bool], told: str | None) -> None:
    python(tmp_path / "bin/python3.11", old=not mine)
    environment = tmp_path / "mine"
    python(environment / "bin/python", **mine)
    made = setup(tmp_path, VIRTUAL_ENV=str(environment))
    assert (made.returncode == 0) is (told is None)
    assert told is None or told.format(environment, environment) in made.stdout
    calls = (tmp_path / "calls").read_text()
    assert ("-m pip install" in calls) is (told is None)
    assert "-m venv" not in calls
