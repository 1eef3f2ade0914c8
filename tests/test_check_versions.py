"""What scripts/check_versions.py asks of pip and pytest, without making an environment."""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

import pytest

from hiplora.tuner.hooks import TESTED
from scripts import check_versions
from scripts.check_versions import CORNERS, Corner, Venv, check, corner, main, older, releases, stated, summary

TESTED_IN_IT = """...s
SKIPPED [1] tests/merging/test_merge_weights.py:114: needs the suite
7 passed, 1 skipped in 2.00s
"""
LISTED = "peft (0.21.2)\nAvailable versions: 0.21.2, 0.21.1, 0.20.0\n  INSTALLED: 0.21.1\n"


def test_the_corners_are_the_ends_of_the_stated_ranges():
    assert (CORNERS["oldest"].peft, CORNERS["newest"].peft) == TESTED
    for name in ("peft", "transformers", "torch"):
        assert stated(name).startswith(f"{name}>={getattr(CORNERS['oldest'], name)}")


def test_a_corner_in_words():
    assert corner("peft=0.21.1,transformers=5.1.0") == Corner(peft="0.21.1", transformers="5.1.0", torch="2.13.0")
    for words in ("peft=0.21.1", "peft=0.21.1,transformers=", "peft=1,transformers=1,numpy=2"):
        with pytest.raises(argparse.ArgumentTypeError, match="is not valid; write peft="):
            corner(words)


def test_the_walk_starts_at_the_newest():
    assert older(releases(LISTED), "0.21.1") == ["0.21.1", "0.20.0"]
    with pytest.raises(SystemExit, match=r"PEFT 0\.9 is not a release"):
        older(releases(LISTED), "0.9")


@pytest.fixture
def commands(monkeypatch):
    """What is run, each command with its folder and its variables; nothing is."""
    ran = []

    def run(command, cwd=None, env=None, **_):
        ran.append((command, cwd, env))
        printed = TESTED_IN_IT if "pytest" in command else LISTED
        return subprocess.CompletedProcess(command, 0, printed, "")

    monkeypatch.setattr(check_versions.subprocess, "run", run)
    return ran


def test_a_corner_is_installed_without_the_suite_and_tested_without_the_checkout(tmp_path: Path, commands, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    lines = [*check({"oldest": CORNERS["oldest"]}, tmp_path, ["tests/tuner"])]
    versions = "peft 0.21.0, transformers 5.0.0, torch 2.9.1"
    assert lines == [(True, f"oldest ({versions}): 7 passed, 1 skipped in 2.00s; skipped: needs the suite")]
    venv = Venv(tmp_path / "oldest")
    (made, *_), (installed, *_), (tested, folder, variables) = commands
    assert made[1:] == ["-m", "venv", str(tmp_path / "oldest" / "venv")]
    assert installed[:4] == [venv.python, "-m", "pip", "install"]
    assert {str(tmp_path / "oldest" / "source"), *CORNERS["oldest"].pins} <= {*installed}
    assert not any("[" in word for word in installed), "no extra"
    assert (tested[0], tested[-1], folder) == (venv.python, "tests/tuner", tmp_path / "oldest" / "beside")
    assert not (folder / "hiplora").exists()
    assert "PYTHONPATH" not in variables


def test_find_replaces_peft_alone(tmp_path: Path, commands, capsys):
    assert main(["--find", "--work", str(tmp_path)]) == 0
    asked = [
        word for command, *_ in commands for word in command if word.startswith("peft==") and "--no-deps" in command
    ]
    assert asked == ["peft==0.21.2", "peft==0.21.1", "peft==0.20.0"]
    assert "peft 0.20.0, transformers" in capsys.readouterr().out


def test_a_refusal_is_told():
    stderr = "ImportError while loading conftest\nE   hiplora.errors.UserError: PEFT 0.20.0 is installed, where …\n"
    done = subprocess.CompletedProcess([], 4, "", stderr)
    assert summary(done) == "pytest ended with 4 before the first test; PEFT 0.20.0 is installed, where …"
