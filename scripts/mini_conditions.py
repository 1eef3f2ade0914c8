"""The conditions of the mini scale, and the runs that they judge; scripts/check_mini.py is the command."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from hiplora.compose import compose
from hiplora.config import digest
from hiplora.disk import default_cache_dir
from hiplora.mini import materialise
from hiplora.mini.leaks import leaks
from hiplora.pipelines.base import Config, training
from hiplora.stages.base import Source as Of
from hiplora.stages.make import Engine, Wanted
from hiplora.stages.record import Record
from hiplora.stages.score import Score
from hiplora.stages.sources import Adapted, Backbone, Merged
from hiplora.stages.store import Store
from hiplora.stages.train import Train
from hiplora.stats import kept_share
from hiplora.tasks import ORDER, primary
from hiplora.tasks.source import Source
from hiplora.tracking import Tracking

SEEDS = (7, 8)
AA_SEEDS, AA_TASKS, AA_THREADS = (7, 8, 9, 11), ("gsm8k", "scienceqa"), (1, 2)
CHOICE = ("mmlu", "scienceqa")
BY_NLL = ("mmlu",)  # trained on general instructions, not on the benchmark: judged by its gold answers' likelihood
ITEMS = {"mmlu": 300, "scienceqa": 300, "gsm8k": 300, "code": 80}
Numbers = dict[str, float | int | str | None]
CONDITIONS = {
    "C1": "backbone at least 10 pp above chance and below 75 % on both multiple-choice benchmarks; its pass@1 15 to 60 "
    "%, LoRA's at most 85 %",
    "C2": "each adapter gains on its own headline score (mmlu: gold NLL) by two standard errors of the difference",
    "C3": "general text rises by at most 0.5 nats with each adapter; none makes more than half of the sum of the four",
    "C4": "LoRA's merges of four keep 20 to 80 % of the gain in NLL",
    "C5": "A/A: the spread of Proj-LoRA between two numbers of threads is known",
    "C6": "300 items for each multiple-choice benchmark and for word problems, 80 functions",
    "C7": "nothing held out is told in a training corpus",
}


@dataclass
class Check:
    """A condition's outcome: ``passed`` is None if it only reports; ``numbers`` by their description."""

    name: str
    passed: bool | None
    numbers: Numbers = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        outcome = {True: "pass", False: "FAIL", None: "reported"}[self.passed]
        yield f"{self.name} {outcome}: {CONDITIONS[self.name]}"
        yield from (f"    {of}: {shown(value)}" for of, value in self.numbers.items())


def shown(value: float | int | str | None) -> str:
    return "not measured" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


class Runs:
    """The stages behind the conditions; each is made once and then reused."""

    def __init__(self, folder: Path, words: Sequence[str]) -> None:
        self.folder = folder
        self.words = ["data=mini", "method=lora", "evaluation.splits=validation", *words]

    def config(self, *words: str, seed: int = SEEDS[0], folder: str = "") -> Config:
        here = self.folder / folder
        places = [f"outputs_dir={here / 'outputs'}", f"results_dir={here / 'results'}"]
        return compose([*self.words, "seed=custom", f"seed.value={seed}", *places, *words])

    def asked(self) -> dict[str, Any]:
        """What all numbers depend on: LoRA's rate, steps and own options, the seeds, and the arithmetic.

        ``digest`` stands for the settings not shown: all of training and evaluation, and Proj-LoRA's.
        """
        config, proj = self.config(), self.config("method=proj")
        method = {name: value for name, value in config.method.model_dump().items() if name != "name"}
        asked = {"lr": config.training.lr, "steps": config.training.steps, **method}
        others = [config.training, config.evaluation, *config.benchmarks, proj.method, proj.training, proj.svd]
        asked["digest"] = digest([each.identity() for each in others])
        return {**asked, "seeds": list(SEEDS), "arithmetic": config.model.where()}

    def score(self, config: Config, of: Of, tasks: Sequence[str], *, likelihood_only: bool = False) -> Scored:
        asked = tuple(task for task in config.benchmarks if task.name in tasks)
        evaluation = config.evaluation.but(likelihood_only=likelihood_only)
        stage = Score(of=of, benchmarks=asked, evaluation=evaluation, data=config.data)
        store = Store(config.places)
        (outcome,) = Engine(store, Tracking(enabled=False, folder=config.places.outputs)).run([Wanted(stage)])
        return Scored(outcome.record, store)

    @cache  # noqa: B019  one object per command
    def backbone(self) -> Scored:
        config = self.config()
        return self.score(config, Backbone(model=config.model), ORDER)

    def trained(self, task: str, seed: int) -> Train:
        return training(self.config(f"task={task}", seed=seed))

    @cache  # noqa: B019
    def adapted(self, task: str, seed: int) -> Scored:
        """An adapter's scores on its own benchmark, and on general text."""
        return self.score(self.config(seed=seed), Adapted(train=self.trained(task, seed)), [task])

    @cache  # noqa: B019
    def merged(self, seed: int) -> Scored:
        """The likelihood scores of all four adapters of a seed, merged by addition."""
        config = self.config("merge=addition", seed=seed)
        adapters = tuple(self.trained(task, seed) for task in ORDER)
        return self.score(config, Merged(adapters=adapters, operator=config.merge), ORDER, likelihood_only=True)


@dataclass(frozen=True)
class Scored:
    """A record of scores, with the predictions behind it."""

    record: Record
    store: Store

    def value(self, benchmark: str, metric: str = "nll") -> float | None:
        return self.record.result.benchmarks[benchmark][metric]

    def nll(self, benchmark: str) -> float:
        found = self.value(benchmark)
        assert found is not None  # a likelihood is always measured
        return found

    def samples(self, benchmark: str) -> list[dict[str, Any]]:
        name = f"{self.record.kind}/{self.record.samples}"
        folders = [records.folder for records in (self.store.local, self.store.tracked) if records is not None]
        path = next(folder / name for folder in folders if (folder / name).is_file())
        rows = map(json.loads, gzip.decompress(path.read_bytes()).splitlines())
        return [row for row in rows if row["benchmark"] == benchmark]

    def per_item(self, task: str) -> dict[str, float] | None:
        """The score that C2 uses, by item, higher is better; None for code that was not executed."""
        samples = self.samples(task)
        if task in BY_NLL:
            return {row["id"]: -row["nll"] for row in samples}
        if primary(task) == "acc":
            return {row["id"]: row["acc"] for row in samples}
        if "verdicts" not in samples[0]:
            return None
        return {row["id"]: fmean(verdict == "passed" for verdict in row["verdicts"]) for row in samples}


def c1(runs: Runs) -> Check:
    numbers: Numbers = {}
    holds: list[bool] = []
    for task in CHOICE:
        chance = fmean(1 / len(row["log_probs"]) for row in runs.backbone().samples(task))
        accuracy = runs.backbone().value(task, "acc")
        numbers |= {f"{task}, backbone's accuracy": accuracy, f"{task}, chance": chance}
        holds.append(accuracy is not None and chance + 0.10 <= accuracy < 0.75)
    base = runs.backbone().value("code", "pass@1")
    tuned = {seed: runs.adapted("code", seed).value("code", "pass@1") for seed in SEEDS}
    numbers["code, backbone's pass@1"] = base
    numbers |= {f"code, LoRA's pass@1, seed {seed}": value for seed, value in tuned.items()}
    holds.append(base is not None and 0.15 <= base <= 0.60)
    holds += [value is not None and value <= 0.85 for value in tuned.values()]
    return Check("C1", all(holds), numbers)


def paired(before: Mapping[str, float], after: Mapping[str, float]) -> tuple[float, float]:
    """Mean difference over the same items, and its standard error."""
    differences = [after[item] - before[item] for item in before]
    return fmean(differences), stdev(differences) / math.sqrt(len(differences))


def c2(runs: Runs) -> Check:
    numbers: Numbers = {}
    holds: list[bool] = []
    for task in ORDER:
        for seed in SEEDS:
            name = f"{task}, seed {seed}, gain in {'-NLL' if task in BY_NLL else primary(task)}"
            before, after = runs.backbone().per_item(task), runs.adapted(task, seed).per_item(task)
            if before is None or after is None:
                numbers[name], holds = None, [*holds, False]
                continue
            gain, error = paired(before, after)
            numbers[name] = f"{gain:+.3f}, two standard errors {2 * error:.3f}"
            holds.append(gain > 0 and gain >= 2 * error)
    return Check("C2", all(holds), numbers)


def c3(runs: Runs) -> Check:
    """Judged by `text`; `text_sampled`, whose rise is a KL divergence, is only reported."""
    numbers: Numbers = {}
    holds: list[bool] = []
    for seed in SEEDS:
        rises = {task: runs.adapted(task, seed).nll("text") - runs.backbone().nll("text") for task in ORDER}
        for task, rise in rises.items():
            numbers[f"{task}, seed {seed}, rise of text"] = rise
            sampled = runs.adapted(task, seed).nll("text_sampled") - runs.backbone().nll("text_sampled")
            numbers[f"{task}, seed {seed}, rise of sampled text"] = sampled
        holds.append(max(rises.values()) <= 0.5)
        if (total := sum(rises.values())) > 0:  # otherwise there is no damage to compare
            numbers[f"seed {seed}, largest share of the sum"] = max(rises.values()) / total
            holds.append(max(rises.values()) <= total / 2)
    return Check("C3", all(holds), numbers)


def c4(runs: Runs) -> Check:
    numbers: Numbers = {}
    for task in ORDER:
        for seed in SEEDS:
            base, own = runs.backbone().nll(task), runs.adapted(task, seed).nll(task)
            kept = kept_share(base=base, own=own, merged=runs.merged(seed).nll(task))
            numbers[f"{task}, seed {seed}, share of the gain kept"] = kept
    known = [value for value in numbers.values() if isinstance(value, float)]
    mean = fmean(known) if len(known) == len(numbers) else None  # an adapter without a gain has nothing to keep
    return Check("C4", mean is not None and 0.20 <= mean <= 0.80, {"mean": mean, **numbers})


def c5(runs: Runs) -> Check:
    """Each adapter trained with two numbers of threads; the records of each are in a separate folder."""
    import torch

    found: dict[tuple[str, int, int], Scored] = {}
    before = torch.get_num_threads()
    try:
        for threads in AA_THREADS:
            torch.set_num_threads(threads)
            for task in AA_TASKS:
                for seed in AA_SEEDS:
                    words = ("method=proj", f"task={task}")
                    config = runs.config(*words, seed=seed, folder=f"threads-{threads}")
                    train = training(config)
                    scored = runs.score(config, Adapted(train=train), [task], likelihood_only=True)
                    found[task, seed, threads] = scored
    finally:
        torch.set_num_threads(before)
    numbers: Numbers = {}
    for task in AA_TASKS:
        for benchmark in (task, "text", "text_sampled"):
            pairs = [[found[task, seed, threads].nll(benchmark) for threads in AA_THREADS] for seed in AA_SEEDS]
            spread = stdev(one - other for one, other in pairs)
            numbers[f"{task}, standard deviation of the difference in NLL of {benchmark}"] = spread
    return Check("C5", None, numbers)


def c6(runs: Runs) -> Check:
    config = runs.config()
    source = Source(config.data)
    numbers: Numbers = {}
    holds: list[bool] = []
    for task in config.benchmarks:
        for split in ("validation", "test"):
            count = len(task.test_items(source, split))
            numbers[f"{task.name}, {split}, items"] = count
            numbers[f"{task.name}, {split}, largest standard error"] = math.sqrt(0.25 / count)
            holds.append(count >= ITEMS[task.name])
    return Check("C6", all(holds), numbers)


def c7(runs: Runs) -> Check:
    found = leaks(materialise(default_cache_dir()))
    numbers: dict[str, float | int | str | None] = {
        f"{name}, told in training": len(told) for name, told in found.items()
    }
    return Check("C7", not any(found.values()), numbers)


CHECKS: dict[str, Callable[[Runs], Check]] = {"C7": c7, "C6": c6, "C1": c1, "C2": c2, "C3": c3, "C4": c4, "C5": c5}
