"""Check whether two checkouts of this project compute the same numbers, to the last digit.

    python scripts/same_numbers.py BASELINE CHANGED --work DIR [--only hip,lora,ties] [training.lr=1e-3 …]

The script makes the same short runs in both, through ``python -m hiplora.run`` on the packaged model and the
mini-benchmarks: a training and an evaluation per method (not of proj, olora and osf), and a merge of two LoRA adapters
per operator and calibration.
Each run is a process with one thread and without a GPU. The script compares the tensors of the adapters and the metrics
of the records, never the files: ids, names and timings may differ. Both checkouts share one cache of models and SVDs,
so the code that makes those is not compared. Counts (``n``, ``tokens``) are not compared either.

For each case the script prints ``same`` or the first difference; the exit status is 1 if there is a difference. A
tensor or metric that only one checkout has, or a run that fails, counts as a difference. With --work, finished runs are
reused: their folder is named after the commit, uncommitted changes and settings. If CHANGED has other names for
settings, ``--rename merging.sizes=pipeline.sizes`` translates. A whole comparison takes about an hour.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from filelock import FileLock
from safetensors.torch import load_file
from tqdm import tqdm

Key: TypeAlias = tuple[str, str, str]  # subject, benchmark, metric
Scores: TypeAlias = Iterator[tuple[str, Mapping[str, Mapping[str, Any]]]]

METHODS = ("hip", "hip_absolute", "lora", "pissa", "adalora", "dora", "split")
OPERATORS = ("addition", "task_arithmetic", "ties", "dare", "della", "tsvm", "knots", "core_space")
CALIBRATIONS = ("rescale", "random", "pico")
COMMON = ("seed=42", "training.steps=6", "evaluation.limit=20")
MERGE = ("pipeline=merge", "method=lora", "merging.sizes=[2]", "merging.instances=1", "merging.training_seeds=[42]")
MEMBERS = ("lora_scienceqa", "lora_code")  # the adapters that MERGE draws; made first, so that a merge only merges
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Case:
    """One command, the cases that must be made before it, and its approximate duration."""

    words: tuple[str, ...]
    needs: tuple[str, ...] = ()
    seconds: int = 110


def cases() -> dict[str, Case]:
    """All cases by name, in the order in which they run."""
    found = {name: Case(("pipeline=single", f"method={name}", "task=gsm8k")) for name in METHODS}
    for name in MEMBERS:
        found[name] = Case(("pipeline=single", "method=lora", f"task={name.removeprefix('lora_')}"))
    for name in OPERATORS:
        found[name] = Case((*MERGE, f"merge={name}"), MEMBERS, seconds=75)
    for name in CALIBRATIONS:
        found[name] = Case((*MERGE, "merge=addition", f"merge.calibration={name}"), MEMBERS, seconds=75)
    return found


@dataclass(frozen=True)
class Side:
    """One checkout, and the folder with the output of its runs."""

    checkout: Path
    folder: Path
    settings: tuple[str, ...]
    python: str
    environment: Mapping[str, str]

    def run(self, name: str, case: Case) -> str | None:
        """Run a case unless it is finished; None, or the last line of its output if it fails.

        If another process works in the same folder, wait for it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".lock"):
            return None if self.made(name) else self._run(name, case)

    def _run(self, name: str, case: Case) -> str | None:
        before = self.folder / "before" / f"{name}.json"
        if not before.is_file():  # keep the first attempt's list, since a stopped attempt may have left files
            write(before, self._files())
        log = self.folder / "logs" / f"{name}.log"
        log.parent.mkdir(exist_ok=True)
        command = [self.python, "-m", "hiplora.run", *case.words, *self.settings]
        command += [f"outputs_dir={self.folder / 'outputs'}", f"results_dir={self.folder / 'results'}"]
        started = time.perf_counter()
        with log.open("w") as lines:
            done = subprocess.run(command, cwd=self.checkout, env=self.environment, stdout=lines, stderr=lines)
        if done.returncode != 0:
            printed = [line for line in log.read_text().split("\n") if line.strip()]
            return f"failed: {printed[-1] if printed else 'without a message'} ({log})"
        others = {path for note in self.folder.glob("cases/*.json") for path in json.loads(note.read_text())["left"]}
        left = [path for path in self._files() if path not in others.union(json.loads(before.read_text()))]
        write(self._note(name), {"seconds": round(time.perf_counter() - started, 1), "left": left})
        return None

    def made(self, name: str) -> bool:
        return self._note(name).is_file()

    def tensors(self, name: str) -> dict[str, torch.Tensor]:
        """All tensors of the adapters that a case wrote, by name."""
        found: dict[str, torch.Tensor] = {}
        for number, path in enumerate(self._left(name, ".safetensors")):
            several = f" of adapter {number}" if number else ""
            found |= {key + several: tensor for key, tensor in load_file(path).items()}
        return found

    def numbers(self, name: str) -> dict[Key, float]:
        """The metrics that a case recorded, and the backbone's, whichever case recorded them first."""
        found: dict[Key, float] = {}
        own = self._left(name, ".json")
        for path in sorted(self.folder.glob("results/**/records/*/*.json")):
            for subject, benchmarks in scores(json.loads(path.read_text())):
                if path in own or subject == "backbone":
                    again = flat(subject, benchmarks)
                    found |= again if not found.keys() & again.keys() else flat(f"{subject} {path.stem}", benchmarks)
        return found

    def _note(self, name: str) -> Path:
        return self.folder / "cases" / f"{name}.json"

    def _files(self) -> list[str]:
        """All records and adapters, as paths relative to the folder."""
        patterns = ("results/**/records/*/*.json", "outputs/adapters/*/adapter_model.safetensors")
        found = (path for pattern in patterns for path in self.folder.glob(pattern))
        return sorted(path.relative_to(self.folder).as_posix() for path in found)

    def _left(self, name: str, ending: str) -> list[Path]:
        left = json.loads(self._note(name).read_text())["left"] if self.made(name) else []
        return [self.folder / path for path in left if path.endswith(ending)]


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n")


def scores(record: Mapping[str, Any]) -> Scores:
    """The scores in a record, of either schema: (subject, {benchmark: {metric: value}})."""
    if record["schema"] == 1:
        metrics = record["metrics"]
        if record["pipeline"] == "backbone":
            yield "backbone", metrics["base"]
        if record["pipeline"] == "single":
            yield "adapter", metrics["adapted"]
        for instance in metrics.get("instances", []):
            yield "merged", {**instance["after"], "text": instance["text"]}
    elif record["kind"] == "score":
        subjects = {"train": "adapter"}
        kind = record["asked"]["of"]["kind"]
        yield subjects.get(kind, kind), record["result"]["benchmarks"]


def flat(subject: str, benchmarks: Mapping[str, Mapping[str, Any]]) -> dict[Key, float]:
    """The metrics with a value; one not measured is null in one schema and may be absent in another."""
    return {
        (subject, benchmark, metric): float(value)
        for benchmark, metrics in benchmarks.items()
        for metric, value in metrics.items()
        if value is not None and metric not in ("n", "tokens")
    }


def difference(baseline: Side, changed: Side, name: str) -> str | None:
    """The first difference of a case as text, with both values; None if there is none."""
    ours, theirs = baseline.tensors(name), changed.tensors(name)
    for key in sorted(ours.keys() | theirs.keys()):
        if (missing := only_one(key in ours, key in theirs)) is not None:
            return f"tensor {key}: {missing}"
        if (unlike := tensor_difference(ours[key], theirs[key])) is not None:
            return f"tensor {key}: {unlike}"
    left, right = baseline.numbers(name), changed.numbers(name)
    for metric in sorted(left.keys() | right.keys()):
        if (missing := only_one(metric in left, metric in right)) is not None:
            return f"metric {' '.join(metric)}: {missing}"
        if repr(left[metric]) != repr(right[metric]):
            return f"metric {' '.join(metric)}: {left[metric]!r} and {right[metric]!r}"
    return None if left else "no metric in either"


def only_one(ours: bool, theirs: bool) -> str | None:
    """Text that names the only checkout that has something; None if both have it."""
    if ours and theirs:
        return None
    return "only in BASELINE" if ours else "only in CHANGED"


def tensor_difference(ours: torch.Tensor, theirs: torch.Tensor) -> str | None:
    """Text about the values that differ between two tensors, with the first pair; None if they are bitwise equal."""
    if (ours.dtype, ours.shape) != (theirs.dtype, theirs.shape):
        return f"{ours.dtype} {[*ours.shape]} and {theirs.dtype} {[*theirs.shape]}"
    bits = [tensor.contiguous().view(-1, 1).view(torch.uint8) for tensor in (ours, theirs)]
    unlike = (bits[0] != bits[1]).any(dim=1).nonzero()
    if not len(unlike):
        return None
    first = int(unlike[0])
    values = " and ".join(repr(tensor.flatten()[first].item()) for tensor in (ours, theirs))
    return f"{len(unlike)} of {ours.numel()} values, the first at {first}: {values}"


def state(checkout: Path, settings: Sequence[str]) -> str:
    """The commit of a checkout, with a digest of its uncommitted changes and of the settings of its runs."""

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(checkout), *words], check=True, capture_output=True, text=True).stdout

    total = hashlib.sha256(f"{[*settings]}\n{git('diff', 'HEAD')}".encode())
    for name in git("ls-files", "--others", "--exclude-standard", "hiplora", "conf").splitlines():
        total.update(name.encode() + b"\0" + (checkout / name).read_bytes())
    return f"{git('rev-parse', '--short=10', 'HEAD').strip()}-{total.hexdigest()[:8]}"


def check_package(side: Side) -> None:
    """Print which package the checkout's runs import; exit if it is not the checkout's own."""
    command = [side.python, "-c", "import hiplora; print(hiplora.__file__)"]
    done = subprocess.run(command, cwd=side.checkout, env=side.environment, capture_output=True, text=True)
    print(f"{side.folder.name} imports {done.stdout.strip()}")
    if not Path(done.stdout.strip()).is_relative_to(side.checkout):
        sys.exit(f"{side.checkout} does not import its own package; give a checkout of this project. {done.stderr}")


def chosen(only: str | None) -> dict[str, Case]:
    """The requested cases and those that they need, by name."""
    every = cases()
    asked = only.split(",") if only else list(every)
    if unknown := [name for name in asked if name not in every]:
        sys.exit(f"--only names {', '.join(unknown)}; choose among {', '.join(every)}.")
    wanted = {name for case in asked for name in (case, *every[case].needs)}
    return {name: case for name, case in every.items() if name in wanted}


def renamed(words: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """The overrides with the beginning OLD of a key replaced by NEW, for each OLD=NEW in ``names``."""
    for old, new in (name.split("=", 1) for name in names):
        words = [new + word.removeprefix(old) if word.startswith(old) else word for word in words]
    return tuple(words)


def compare(sides: Sequence[Side], wanted: Mapping[str, Case], *, rename: Sequence[str]) -> int:
    """Run the missing cases one after the other in both checkouts; returns the number of cases that differ."""
    baseline, changed = sides
    calls = [(name, side) for name in wanted for side in sides]
    left = sum(wanted[name].seconds for name, side in calls if not side.made(name))
    print(f"{len(wanted)} cases; the missing runs take about {-(-left // 60)} min.", flush=True)
    differing, failed = 0, dict.fromkeys(wanted, "")
    with tqdm(calls, unit="run") as bar:
        for name, side in bar:
            bar.set_description(f"{name} {side.folder.name}")
            case = wanted[name]
            if side is changed:
                case = Case(renamed(case.words, rename), case.needs, case.seconds)
            failed[name] = failed[name] or side.run(name, case) or ""
            if side is changed:
                unlike = failed[name] or difference(baseline, changed, name)
                differing += unlike is not None
                bar.write(f"{name}: {unlike or 'same'}", file=sys.stdout)
                sys.stdout.flush()
    return differing


def main() -> int:
    """Run both checkouts and compare them; the exit status, 1 if anything differs."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("baseline", type=Path, metavar="BASELINE", help="a checkout")
    p.add_argument("changed", type=Path, metavar="CHANGED", help="the checkout to compare with it")
    p.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="further settings of every run")
    p.add_argument("--only", help=f"some of {','.join(cases())}")
    p.add_argument("--work", type=Path, help="folder that keeps finished runs (default: a temporary one)")
    p.add_argument("--cache", type=Path, help="cache of models and SVDs (default: WORK/cache)")
    p.add_argument("--python", default=sys.executable, help="interpreter of the runs (default: this one)")
    p.add_argument("--rename", action="append", default=[], metavar="OLD=NEW", help="keys OLD… are NEW… in CHANGED")
    p.add_argument("--code-execution", action="store_true", help="also execute generated code, in the sandbox")
    args = p.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # also ends the current run
    work = (args.work or Path(tempfile.mkdtemp(prefix="same_numbers."))).resolve()
    print(f"Runs are kept in {work}.")
    settings = (*COMMON, f"evaluation.code_execution={'auto' if args.code_execution else 'off'}", *args.settings)
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    environment |= dict.fromkeys(THREADS, "1") | {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["HIPLORA_CACHE"] = str((args.cache or work / "cache").resolve())
    sides = []
    for role, path in (("baseline", args.baseline.resolve()), ("changed", args.changed.resolve())):
        words = settings if role == "baseline" else renamed(settings, args.rename)
        folder = work / f"{role}-{state(path, words)}"
        sides.append(Side(path, folder, words, args.python, environment))
        check_package(sides[-1])
    differing = compare(sides, chosen(args.only), rename=args.rename)
    print("All cases are the same." if not differing else f"{differing} cases differ.")
    return int(differing > 0)


if __name__ == "__main__":
    sys.exit(main())
