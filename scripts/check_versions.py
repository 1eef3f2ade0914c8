"""Test the library with the oldest and newest supported versions: python scripts/check_versions.py [--only oldest].

For each corner (a version of each package) the script makes an empty virtual environment, installs the library without
the suite at those versions, runs the tests of the tuner and of merging against the installed package, and prints one
line. With --find it goes through PEFT's releases downwards from the newest corner's until the tests of the tuner fail,
which is how the lower end of the range was found. The output of a corner is in WORK/<corner>/log.txt. An environment
takes 1.5 GB, with a CUDA build of torch 6 GB, and minutes to make.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
INSTALLED = ("hiplora", "pyproject.toml", "README.md", "LICENSE")
BESIDE = (
    "tests",
    "conf",
    "docs",
    "pyproject.toml",
)  # files of the tests; no hiplora/, so that the installed one is used
TESTS = ("tests/tuner", "tests/merging")
QUICK = (
    "tests/tuner/test_layer.py",
    "tests/tuner/test_saving.py",
    "tests/tuner/test_peft_operations.py",
    "tests/tuner/test_several_adapters.py",
)
NEEDED = ("pytest>=8", "pyyaml")


@dataclass(frozen=True)
class Corner:
    """One version of each package for which the library states a range."""

    peft: str
    transformers: str
    torch: str = "2.13.0"

    @property
    def pins(self) -> list[str]:
        """The requirements for pip."""
        return [f"{each.name}=={getattr(self, each.name)}" for each in fields(self)]

    def __str__(self) -> str:
        return ", ".join(pin.replace("==", " ") for pin in self.pins)


CORNERS = {
    "oldest": Corner(peft="0.21.0", transformers="5.0.0", torch="2.9.1"),
    "newest": Corner(peft="0.21.2", transformers="5.24.0", torch="2.14.1"),
}


def corner(words: str) -> Corner:
    """The corner of ``peft=0.21.0,transformers=5.0.0[,torch=2.13.0]``."""
    known = [each.name for each in fields(Corner)]
    given = dict(word.partition("=")[::2] for word in words.split(","))
    if not given.keys() <= {*known} or not {"peft", "transformers"} <= given.keys() or not all(given.values()):
        raise argparse.ArgumentTypeError(f"{words!r} is not valid; write peft=0.21.0,transformers=5.0.0 (,torch=…)")
    return Corner(**given)


class Venv:
    """A folder with a virtual environment and the tests, but no checkout of the package."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.python = folder, str(folder / "venv" / "bin" / "python")

    def fill(self, pins: Sequence[str]) -> None:
        """Make the environment and install the library in it. Raises CalledProcessError if a command fails."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for place, names in (("source", INSTALLED), ("beside", BESIDE)):
            for name in names:
                copy(ROOT / name, self.folder / place / name)
        for command in self.making(pins):
            self.run(command).check_returncode()

    def making(self, pins: Sequence[str]) -> list[list[str]]:
        """The commands that make the environment, in order."""
        install = [str(self.folder / "source"), *pins, *NEEDED]
        return [[sys.executable, "-m", "venv", str(self.folder / "venv")], self.pip("install", *install)]

    def pip(self, *words: str) -> list[str]:
        """A command line of the environment's pip, without compiling modules at installation."""
        verb, *rest = words
        options = ["--quiet", "--no-compile", "--disable-pip-version-check"] if verb == "install" else []
        return [self.python, "-m", "pip", verb, *options, *rest]

    def test(self, tests: Sequence[str]) -> tuple[bool, str]:
        """Whether the tests passed, and pytest's last line with the reasons for skipped tests."""
        command = [self.python, "-m", "pytest", "-rfEs", "-p", "no:cacheprovider", *tests]
        done = self.run(command, cwd=self.folder / "beside")
        return done.returncode == 0, summary(done)

    def run(self, command: Sequence[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """The finished command; its output is appended to the log."""
        done = subprocess.run(command, cwd=cwd, env=environment(self.folder), capture_output=True, text=True)
        with (self.folder / "log.txt").open("a") as log:
            log.write(f"$ {' '.join(command)}\n{done.stdout}{done.stderr}\n")
        return done


def summary(done: subprocess.CompletedProcess[str]) -> str:
    """Pytest's last line, the reasons for skipped tests, and the tuner's refusal of PEFT if there was one."""
    lines = done.stdout.strip().splitlines()
    last = lines[-1].strip("= ") if lines else f"pytest ended with {done.returncode} before the first test"
    reasons = sorted(set(re.findall(r"^SKIPPED \[\d+\] \S+ (.*)$", done.stdout, re.M)))
    refused = re.search(r"UserError: (PEFT .*)$", f"{done.stdout}\n{done.stderr}", re.M)
    because = [f"skipped: {reason}" for reason in reasons] + ([refused[1]] if refused else [])
    return "; ".join([last, *because])


def copy(source: Path, target: Path) -> None:
    """Copy a file or a folder, without compiled modules."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def environment(folder: Path) -> Mapping[str, str]:
    """Environment variables of every command: no import from this checkout or another environment, no Hub."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return kept | {"HF_HUB_OFFLINE": "1", "HIPLORA_CACHE": str(folder / "cache")}


def check(chosen: Mapping[str, Corner], work: Path, tests: Sequence[str]) -> Iterator[tuple[bool, str]]:
    """For each corner, whether its tests passed, and its line."""
    for name, each in chosen.items():
        venv = Venv(work / name)
        try:
            venv.fill(each.pins)
        except subprocess.CalledProcessError:
            yield False, f"{name} ({each}): not installed, see {venv.folder / 'log.txt'}"
            continue
        passed, line = venv.test(tests)
        yield passed, f"{name} ({each}): {line}"


def find(newest: Corner, work: Path, tests: Sequence[str]) -> Iterator[tuple[bool, str]]:
    """Results and lines of PEFT's releases downwards from the newest corner's, to the first failure.

    Raises:
        CalledProcessError: the environment cannot be made.
    """
    venv = Venv(work / "find")
    venv.fill(newest.pins)
    listed = venv.run(venv.pip("index", "versions", "peft")).stdout
    for version in older(releases(listed), newest.peft):
        each = replace(newest, peft=version)
        # Without dependencies, since the range in pyproject.toml would refuse the version.
        venv.run(venv.pip("install", "--no-deps", f"peft=={version}")).check_returncode()
        passed, line = venv.test(tests)
        yield passed, f"{each}: {line}"
        if not passed:
            return


def releases(listed: str) -> list[str]:
    """The versions that ``pip index versions`` lists, newest first."""
    found = re.search(r"^Available versions: (.*)$", listed, re.M)
    if found is None:
        sys.exit(f"pip index versions lists no versions: {listed.strip()}")
    return found[1].split(", ")


def older(versions: Sequence[str], newest: str) -> list[str]:
    """The versions from ``newest`` downwards; ``versions`` are ordered newest first."""
    if newest not in versions:
        sys.exit(f"PEFT {newest} is not a release; choose among {', '.join(versions[:5])}, …")
    return [*versions[versions.index(newest) :]]


def stated(package: str) -> str:
    """The requirement that pyproject.toml states for a package of the library."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return next(line for line in project["dependencies"] if re.match(rf"{package}\b", line))


def main(arguments: Sequence[str] | None = None) -> int:
    """Test the chosen corners or find the oldest PEFT; the exit status, 1 if a corner failed."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("tests", nargs="*", help=f"default: {' '.join(TESTS)}; with --find some of the tuner's")
    p.add_argument("--only", choices=[*CORNERS], help="test only one of the two corners")
    p.add_argument("--corner", type=corner, help="test another corner: peft=0.21.0,transformers=5.0.0")
    p.add_argument("--find", action="store_true", help="go through PEFT's releases downwards until the tests fail")
    p.add_argument("--work", type=Path, help="folder for the environments (default: a temporary one)")
    args = p.parse_args(arguments)
    work = (args.work or Path(tempfile.mkdtemp(prefix="check_versions."))).resolve()
    print(f"pyproject.toml: {', '.join(stated(each.name) for each in fields(Corner))}. Environments are in {work}.")
    if args.find:
        lines = find(args.corner or CORNERS["newest"], work, args.tests or QUICK)
    else:
        chosen = {name: each for name, each in CORNERS.items() if args.only in (None, name)}
        lines = check({"corner": args.corner} if args.corner else chosen, work, args.tests or TESTS)
    failed = 0
    for passed, line in lines:
        print(line, flush=True)
        failed += not passed
    return int(failed > 0 and not args.find)


if __name__ == "__main__":
    sys.exit(main())
