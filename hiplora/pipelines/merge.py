"""Merge adapters that were trained apart, and score what is left of each of them.

One run draws the instances of one sampling seed: task subsets of several sizes, and for each task one of its
training seeds. The draw depends on nothing else, so every method and operator meets the same tuples.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiplora.config import digest
from hiplora.disk import read_json, write_json
from hiplora.errors import UserError
from hiplora.pipelines import scoring
from hiplora.pipelines.adapter import trained
from hiplora.pipelines.base import Pipeline, Result
from hiplora.pipelines.single import Single, outdated
from hiplora.records import find_record, partial_path, records_dir
from hiplora.tasks import ORDER

if TYPE_CHECKING:
    from hiplora.config import MergingConfig, RunConfig, TaskConfig
    from hiplora.merging import MergeResult
    from hiplora.models import Backbone
    from hiplora.updates import Update

VERSION = 1
DRAWS = 3  # raise it when random operators draw in another way; records of the others stay
Member = tuple[str, int]  # (task, training seed)
Instance = tuple[Member, ...]


def draw(merging: MergingConfig, *, seed: int) -> list[Instance]:
    """The merge instances of one sampling seed, in order of their sizes.

    Of each size, ``merging.instances`` distinct tuples are drawn without replacement; where fewer exist, all.
    """
    drawn: list[Instance] = []
    for size in merging.sizes:
        every = [
            tuple(zip(tasks, seeds, strict=True))
            for tasks in itertools.combinations(ORDER, size)
            for seeds in itertools.product(merging.training_seeds, repeat=size)
        ]
        count = min(merging.instances, len(every))
        drawn += sorted(random.Random(f"{seed}/{size}").sample(every, count))
    return drawn


class Merge(Pipeline):
    """Before and after merging, per instance and task (Tables 2, 13, 14 and MergeFail)."""

    def labels(self, config: RunConfig) -> dict[str, Any]:
        return {
            **super().labels(config),
            "task": None,
            "merge": config.merge.name,
            "calibration": config.merge.calibration,
        }

    def check(self, config: RunConfig) -> None:
        operator = config.merge
        if config.method.full_rank and not operator.accepts_dense:
            raise UserError(
                f"merge={operator.name} works on low-rank factors, but method={config.method.name} has full-rank "
                "updates; choose a dense operator: addition, task_arithmetic, ties, dare or della."
            )
        scoring.check(_asked(config))

    def identity(self, config: RunConfig) -> dict[str, Any]:
        from hiplora.pipelines.train import Train

        train = [Train().identity(need) for need in self._members(config).values()]
        return {
            "pipeline": "merge",
            "merge": VERSION,
            "operator": _operator(config),
            "instances": draw(config.merging, seed=config.seed),
            "train": [digest(identity) for identity in train],
            "scoring": scoring.identity(_asked(config)),
        }

    def requires(self, config: RunConfig) -> list[RunConfig]:
        return list(self._members(config).values())

    def _members(self, config: RunConfig) -> dict[Member, RunConfig]:
        """The single-task run of every (task, training seed) that some instance merges."""
        members = sorted({member for instance in draw(config.merging, seed=config.seed) for member in instance})
        return {
            (task, seed): config.but(pipeline="single", task=_task(config, task), seed=seed, force=False)
            for task, seed in members
        }

    def directory(self, config: RunConfig, identity: str) -> Path:
        return records_dir(Path(config.results_dir) / config.data.name, "merge")

    def stale(self, config: RunConfig, record: dict[str, Any]) -> str | None:
        """Before is quoted from the members' own records: it must be theirs still, and theirs be of their adapters.

        Without adapters the record stands: it may have come with the project.
        """
        for instance in record["metrics"]["instances"]:
            for task, identity in instance["runs"].items():
                single = find_record(Single().directory(config, identity), identity)
                if single is None:
                    continue
                if single["metrics"]["adapted"][task] != instance["before"][task]:
                    return f"single run {identity}, one of its Before, was scored anew"
                if reason := outdated(config, single):
                    return f"single run {identity}, one of its Before, is out of date: {reason}"
        return None

    def run(self, config: RunConfig, needs: list[dict[str, Any]], identity: str) -> Result:
        from tqdm import tqdm

        from hiplora import models

        backbone = models.load(config.model)
        singles = dict(zip(self._members(config), needs, strict=True))
        updates = _Updates(config, backbone, singles)
        instances = draw(config.merging, seed=config.seed)
        done = [
            _instance(config, backbone, updates, instance) for instance in tqdm(instances, desc="merges", unit="merge")
        ]
        told = [
            _told(index, instance, singles, after)
            for index, (instance, after) in enumerate(zip(instances, done, strict=True))
        ]
        planned = {str(size): sum(len(instance) == size for instance in instances) for size in config.merging.sizes}
        timings = {key: round(sum(after[key] for after in done), 2) for key in ("merge_s", "evaluate_s")}
        return Result(
            {
                "metrics": {"planned": planned, "instances": told},
                "timings": timings,
                "sandbox": scoring.sandbox_name(config),
                "device": models.describe(backbone),
            }
        )


def _task(config: RunConfig, name: str) -> TaskConfig:
    """A benchmark with the user's settings of it; a target other than the answer is of word problems only."""
    return replace(config.task, name=name, target=config.task.target if name == "gsm8k" else "answer")


def _asked(config: RunConfig) -> RunConfig:
    """The configuration that merged models are scored under: word problems as their adapters were trained for them."""
    return config.but(task=_task(config, "gsm8k"))


def _operator(config: RunConfig) -> dict[str, Any]:
    """Operator and options; where something is drawn, also the version of how."""
    operator = config.merge
    random = operator.draws or operator.calibration == "random"
    return {**asdict(operator), **({"draws": DRAWS} if random else {})}


class _Updates:
    """Updates of the trained adapters, each loaded once, when an instance first asks for it."""

    def __init__(self, config: RunConfig, backbone: Backbone, singles: Mapping[Member, dict[str, Any]]) -> None:
        self.config, self.backbone, self.singles = config, backbone, singles
        self._loaded: dict[Member, dict[str, Update]] = {}

    def identity(self, member: Member) -> str:
        return self.singles[member]["needs"]["train"]

    def made(self, member: Member) -> str:
        """When it was scored: where an adapter was made anew, what was kept of a merge of the old one is no use."""
        return self.singles[member]["started"]

    def __getitem__(self, member: Member) -> dict[str, Update]:
        if member not in self._loaded:
            with trained(self.config, self.backbone, self.identity(member)) as adapted:
                self._loaded[member] = self.config.method.updates(adapted)
        return self._loaded[member]


def _instance(config: RunConfig, backbone: Backbone, updates: _Updates, instance: Instance) -> dict[str, Any]:
    """Scores of one merged model; kept on disk, so that a run that was stopped goes on with the next instance."""
    key = digest(
        {
            "merge": VERSION,
            "operator": _operator(config),
            "adapters": [[updates.identity(member), updates.made(member)] for member in instance],
            "scoring": scoring.identity(_asked(config)),
        }
    )
    path = partial_path(config.outputs_dir, key)
    if path.exists() and not config.force:
        return read_json(path)
    after = _merged_scores(config, backbone, updates, instance)
    write_json(path, after)
    return after


def _merged_scores(config: RunConfig, backbone: Backbone, updates: _Updates, instance: Instance) -> dict[str, Any]:
    import time

    import torch

    from hiplora.merging import apply
    from hiplora.merging.attached import attached

    started = time.perf_counter()
    # What is drawn depends on tasks and training seeds alone, so that the rows of a table share their masks.
    drawn = digest({"draws": DRAWS, "adapters": [[task, seed] for task, seed in instance]})
    generator = torch.Generator().manual_seed(int(drawn, 16))
    labels = [f"{task} (seed {seed})" for task, seed in instance]
    merged: MergeResult = apply(
        config.merge, [updates[member] for member in instance], generator=generator, labels=labels
    )
    with attached(backbone.model, merged.updates):
        merge_s = time.perf_counter() - started
        metrics, _, timings = scoring.score(
            backbone.model,
            backbone.tokenizer,
            _asked(config),
            tasks=[task for task, _ in instance],
            subject=f"the merge={config.merge.name} of {', '.join(labels)}",
            remedy="choose another operator or a lower merge.scale, or lower training.lr if one of them has diverged",
        )
    return {"metrics": metrics, "report": merged.report, "merge_s": round(merge_s, 2), **timings}


def _told(
    index: int, instance: Instance, singles: Mapping[Member, dict[str, Any]], after: dict[str, Any]
) -> dict[str, Any]:
    """One instance as its record keeps it: who was merged, and each task's scores before and after."""
    return {
        "size": len(instance),
        "index": index,
        "adapters": dict(instance),
        "runs": {task: singles[task, seed]["id"] for task, seed in instance},
        "before": {task: singles[task, seed]["metrics"]["adapted"][task] for task, seed in instance},
        "after": {task: after["metrics"][task] for task, _ in instance},
        "text": after["metrics"]["text"],
        "report": after["report"],
    }
