"""Made-up records under the identities of real stages, with predictions on real items: what a page is made of."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hiplora import selection
from hiplora.compose import compose_cached
from hiplora.models import weights
from hiplora.pipelines.base import known, scores, training
from hiplora.report.experiment import load
from hiplora.report.find import identify
from hiplora.report.runs.prompts import data_words
from hiplora.stages import record as files
from hiplora.stages.base import Stage
from hiplora.stages.edit import Edit
from hiplora.stages.frontier import Frontier
from hiplora.stages.record import Record, Sample, result_digest
from hiplora.stages.results import Adapter, Result, Scores
from hiplora.stages.results import Frontier as FrontierResult
from hiplora.stages.score import Score
from hiplora.stages.sources import Backbone
from hiplora.stages.train import Train
from hiplora.tasks.base import Task
from hiplora.tasks.source import Source
from tests.report import edits, frontiers
from tests.report.evidence import WORLD
from tests.report.frontiers import BASE, ENVIRONMENT, GAIN, LEVELS

ITEMS = 12  # of each benchmark, answered by every scored model
BACKBONE, OWN, OTHERS = 0.3, 0.7, 0.27  # shares of right answers


class Simulation:
    """Writes records of stages under a folder ``results/mini``; what is made depends on the stage's identity alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = data_words(folder)
        self.made: dict[str, Record] = {}
        self.config = compose_cached(self.settings)
        source = Source(self.config.data)
        self._items = {t.name: (t, t.test_items(source, "test")[:ITEMS]) for t in self.config.benchmarks}

    def levels(self) -> None:
        """A selection that says no more than the levels."""
        chosen = selection.Selection(
            backbone="fixture", identity=weights(self.config.model), level_scale=0.5, level_gain=0.9,
            gate=0.01, objective=(), winners={}, gated={}, levels=LEVELS,
            levels_from={}, trials=[], reference=selection.Reference(words=(), levels=LEVELS, runs=()),
        )  # fmt: skip
        selection.write(self.folder, chosen, "")

    def experiment(self, name: str, **point: Sequence[str]) -> None:
        """Records of the runs of a grid at some keys of its axes."""
        for slot in identify(load(name), self.settings):
            wanted = all(slot.run.point.get(axis, keys[0]) in keys for axis, keys in point.items())
            if slot.config is not None and wanted:
                stages, _ = known(slot.config, self.record)
                for stage in stages:
                    self.record(stage)

    def seeds(self, count: int) -> None:
        """The backbone's scores, and those of one adapter per training seed."""
        self.record(scores(self.config, Backbone(model=self.config.model)))
        for seed in range(count):
            self.record(scores(self.config, training(self.config, seed=seed)))

    def record(self, stage: Stage) -> Record:
        """The record of a stage; what it needs is made too."""
        if stage.id not in self.made:
            needs = {need.id: self.record(need).digest for need in stage.needs()}
            rng = np.random.default_rng(zlib.crc32(stage.id.encode()))
            result, samples = self._result(stage, rng)
            record: Record = Record(
                kind=stage.kind, id=stage.id, where=stage.where(), name=stage.name(), asked=stage.described(),
                needs=needs, digest=result_digest(result, samples), environment=ENVIRONMENT,
                started=f"2025-01-01T{len(self.made) // 60:02d}:{len(self.made) % 60:02d}:00+00:00", result=result,
            )  # fmt: skip
            self.made[stage.id] = files.write(self.folder / "records" / stage.kind, record, samples)
        return self.made[stage.id]

    def _result(self, stage: Stage, rng: np.random.Generator) -> tuple[Result, list[Sample]]:
        if isinstance(stage, Train):
            return _adapter(rng), []
        if isinstance(stage, Frontier):
            return FrontierResult(points=[*_points(stage)], seconds=60.0), []
        if isinstance(stage, Edit):
            return edits.BASE, [_edit(edited=stage.of.made_from() != ()), self._probe()]
        assert isinstance(stage, Score), f"{stage.kind} is not simulated"
        trained = {train.task.name for train in stage.needs() if isinstance(train, Train)}
        benchmarks: dict[str, Any] = {}
        samples: list[Sample] = []
        count = min(ITEMS, stage.evaluation.limit or ITEMS)
        for task in stage.benchmarks:
            share = OWN if task.name in trained else OTHERS if trained else BACKBONE
            answers = [_answer(*self._items[task.name], n, rng.random() < share, rng) for n in range(count)]
            nll = BASE - GAIN * (task.name in trained) + 0.05 * rng.random()
            only = stage.evaluation.likelihood_only
            rate = None if only else sum(answer["right"] for answer in answers) / count
            benchmarks[task.name] = {**dict.fromkeys(task.metrics, rate), "nll": nll, "n": count}
            kept = [{"id": answer["sample"]["id"]} if only else answer["sample"] for answer in answers]
            samples += [{"benchmark": task.name, "nll": nll, **sample} for sample in kept]
        rise = 0.05 + 0.2 * rng.random() if trained else 0.0
        benchmarks |= {name: {"nll": 3 + rise, "tokens": 4096} for name in stage.texts()}
        return Scores(benchmarks=benchmarks, sandbox="off", seconds=50.0), samples

    def _probe(self) -> Sample:
        """The right answer to the first item of validation of a benchmark."""
        task, _ = self._items["gsm8k"]
        items = task.test_items(Source(self.config.data), "validation")
        return {"benchmark": "gsm8k", **_answer(task, items, 0, True, np.random.default_rng(0))["sample"]}


def _adapter(rng: np.random.Generator) -> Adapter:
    loss = 3 * np.exp(-np.arange(60) / 15) + 0.5 + 0.2 * rng.random(60)
    curve = [{"step": float(n + 1), "loss": float(value), "lr": 5e-4} for n, value in enumerate(loss)]
    return Adapter(
        tensors=f"{rng.integers(2**60):064x}", steps=60, tokens=30000, label_tokens=3000, examples=1500, epochs=0.4,
        final_loss=float(loss[-6:].mean()), seconds=100.0, tokens_per_second=300.0, share_prefixes=True,
        resumed_from=None, trainable_parameters=1843200, deployed_parameters=1843200, adapter_bytes=7_400_000,
        peak_memory_bytes=2_000_000_000, curve=curve,
        measures={"update_norm": 9.0, "top_share": 0.2, "top_share_random": 0.1, "channel_share": 0.3},
    )  # fmt: skip


def _points(stage: Frontier) -> Iterator[Any]:
    """The backbone's point, or those of an adapter, whose damage its method and seed decide."""
    if not isinstance(stage.of, Train):
        yield frontiers._zero()
        return
    method, task, seed = stage.of.method.name, stage.of.task.name, stage.of.seed
    noise = WORLD.noise * (WORLD.normal("seed", task, seed) + WORLD.normal(method, task, seed))
    damage = WORLD.forgets.get(method, 1.0) * float(np.exp(noise))
    for scale, fraction in [*((c, 1.0) for c in stage.scales), *((1.0, f) for f in stage.fractions)]:
        yield frontiers._point(task, scale, fraction, damage=damage, learned=1.0)


def _answer(task: Task, items: list[dict[str, Any]], number: int, right: bool, rng: np.random.Generator) -> Any:
    """One answer to one item, as the benchmark keeps it: told by what an item holds."""
    item = items[number]
    prompt, gold = task.prompt(item), task.answer(item)
    kept: dict[str, Any] = {"id": item["id"], "prompt_hash": _hash(prompt), "doc_hash": _hash(json.dumps(item))}
    if task.programs is not None:
        kept |= {"completions": [gold if right else "    return None", "    pass"]}
        kept |= {"verdicts": ["passed" if right else "failed", "passed" if right else "failed"]}
    elif "choices" in item:
        index = int(item["answer"])
        kept |= {"gold": index, "chosen": index if right else (index + 1) % len(item["choices"]), "acc": float(right)}
    else:
        kept |= {"text": gold if right else f" {rng.integers(1000, 2000)}", "acc": float(right)}
    return {"right": right, "sample": kept}


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _edit(*, edited: bool) -> Sample:
    """What is kept of the answer to one edit: the new one if it was edited, else the old one."""
    scored = [[-1.0, 1, edited], [-2.0, 1, not edited]]
    return {
        "batch": 0,
        "id": "entity-0001",
        "category": "entity",
        "prompts": [{"text": " the new" if edited else " the old", "new_old": scored}],
        "neighbours": [],
    }
