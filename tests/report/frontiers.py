"""Simulated frontiers and matched merges: how much an arm forgets and keeps is known, and varies with the seed."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hiplora.matching import place
from hiplora.report.experiment import Run
from hiplora.report.slots import Entry
from hiplora.stages.record import Record
from hiplora.stages.results import Frontier, Metrics, Point, Scores
from hiplora.tasks import ORDER, primary

SCALES = (0.5, 0.6, 0.75, 1.0)
FRACTIONS = (0.5, 0.75)
ENVIRONMENT = {
    "python": "3.11.0", "platform": "Linux-fixture", "device": "cpu", "cores": 2, "git_commit": "0123456789abcdef",
    "git_dirty": False, "versions": {"torch": "2.13.0", "transformers": "5.23.0", "peft": "0.21.2"},
}  # fmt: skip
BASE, GAIN = 2.0, 0.5  # NLL of the backbone on every benchmark, and what an adapter that was trained whole gains
TEXT = {"gsm8k": 0.15, "scienceqa": 0.30, "mmlu": 0.10, "code": 0.20}  # LoRA's rise at c = 1
LEVELS = dict.fromkeys(ORDER, BASE - GAIN * 0.75)  # reached at c = 1/2 without noise
CHANCE = 0.13  # share of a random update's energy in the leading subspaces
Keep = Callable[[dict[str, Any]], bool]


@dataclass(frozen=True)
class World:
    """``forgets`` is an arm's damage in units of LoRA's, ``learns`` its gain, ``keeps`` the share that merges keep.

    ``shares`` is the share of an arm's energy in the leading subspaces (``CHANCE`` without one).

    ``early`` is the damage of the snapshots of a training, in units of that of the finished update scaled as far.

    ``noise`` is the standard deviation over seeds of the logarithm of the damage, half of it shared by the arms of a
    seed; ``draw`` makes another world of the same kind. With ``placed`` every adapter has a point more, measured where
    the others reach the level.
    """

    forgets: Mapping[str, float] = field(default_factory=dict)
    learns: Mapping[str, float] = field(default_factory=dict)
    keeps: Mapping[str, float] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)
    early: float = 1.0
    noise: float = 0.06
    draw: int = 0
    placed: bool = False

    def normal(self, *label: Any) -> float:
        """A standard normal number that depends on a label alone."""
        return float(np.random.default_rng(zlib.crc32(repr((self.draw, *label)).encode())).normal())

    def frontier(self, run: Run, keep: Keep) -> Iterator[Entry]:
        """The backbone's frontier, the adapter's, and its score at the level; without it in pipeline ``curve``."""
        arm, task, seed = run.point["method"], run.point.get("task", "gsm8k"), run.point["seed"]
        yield self._entry(keep, "frontier", (), Frontier(points=[_zero()], seconds=5.0))
        members = ((task, int(seed)),)
        shared = self.noise * self.normal("seed", task, seed)
        damage = self.forgets.get(arm, 1.0) * float(np.exp(shared + self.noise * self.normal(arm, task, seed)))
        learned = self.learns.get(arm, 1.0) * (1 + 0.02 * self.normal("learns", task, seed))
        places = [*((c, 1.0) for c in SCALES), *((1.0, f) for f in FRACTIONS)]
        points = [
            _point(task, c, fraction, damage=damage * (self.early if fraction < 1 else 1), learned=learned)
            for c, fraction in places
        ]
        yield self._entry(keep, "frontier", members, Frontier(points=points, seconds=60.0), arm)
        if run.pipeline == "curve":
            return
        scales, own = [0.0, *SCALES], [BASE, *(point.learning[task]["nll"] for point in points[: len(SCALES)])]
        if self.placed and (found := place(scales, own, LEVELS[task])).reached:
            point = _point(task, found.c, 1.0, damage=damage, learned=learned)
            yield self._entry(keep, "placed", members, Frontier(points=[point], seconds=10.0), arm)
        own = {primary(task): 0.6 + 0.01 * self.normal("own", arm, task, seed), "nll": BASE - GAIN * 0.75}
        yield self._entry(keep, "adapter", members, _scores({task: own}), arm)

    def energy(self, arm: str, task: str, seed: int) -> dict[str, float]:
        """What a training says of its update's energy."""
        share = self.shares.get(arm, CHANCE) + 0.002 * self.normal("share", arm, task, seed)
        return {"top_share": share, "top_share_random": CHANCE}

    def matched_merge(self, run: Run, keep: Keep) -> Iterator[Entry]:
        """The backbone, a seed's adapters alone, and their merge."""
        arm, operator, seed = (run.point[axis] for axis in ("method", "merge", "seed"))
        norms = run.point.get("norms", "own_norms")
        yield self._entry(keep, "backbone", (), _scores({task: {"nll": BASE} for task in ORDER}))
        members = tuple((task, int(seed)) for task in ORDER)
        for member in members:
            alone: dict[str, Metrics] = {member[0]: {primary(member[0]): None, "nll": BASE - self._gain(arm, *member)}}
            yield self._entry(keep, "adapter", (member,), _scores(alone), arm)
        share = self.keeps.get(arm, 0.5) + 0.05 * self.normal("keeps", arm, operator, norms, seed)
        left: dict[str, Metrics] = {
            task: {primary(task): None, "nll": BASE - share * self._gain(arm, task, int(seed))} for task in ORDER
        }
        yield self._entry(keep, "merged", members, _scores(left), arm, f"{operator} {norms}")

    def _gain(self, arm: str, task: str, seed: int) -> float:
        """What an adapter has gained at its level on the test split."""
        return 0.4 + 0.02 * self.normal("gain", arm, task, seed)

    def _entry(self, keep: Keep, role: str, members: Any, result: Any, arm: str = "", merge: str = "") -> Entry:
        label = {"role": role, "method": arm, "members": members, "merge": merge}
        if members and role in ("frontier", "placed", "adapter"):
            label |= dict(zip(("task", "seed"), members[0], strict=True))
        if not keep(label):
            return Entry(role=role, members=members)
        id = f"{zlib.crc32(repr(sorted(label.items())).encode()):012x}"
        kind = "frontier" if isinstance(result, Frontier) else "score"
        record: Record = Record(
            kind=kind, id=id, where="cpu-float32", name=f"{role}-{id}", asked={"fixture": label}, needs={}, digest=id,
            environment=ENVIRONMENT, started="2025-01-01T00:00:00+00:00", result=result,
        )  # fmt: skip
        return Entry(role=role, members=members, record=record)


def _scores(benchmarks: Mapping[str, Metrics]) -> Scores:
    return Scores(benchmarks=dict(benchmarks), sandbox="off", seconds=20.0)


def _zero() -> Point:
    nll: dict[str, Metrics] = {task: {"nll": BASE, "n": 30.0} for task in ORDER}
    texts: dict[str, Metrics] = {name: {"nll": 3.0, "tokens": 2048.0} for name in ("text", "text_sampled")}
    return Point(scale=0, fraction=0, norm=0, top_share=None, learning=nll, benchmarks=nll | texts)


def _point(task: str, scale: float, fraction: float, *, damage: float, learned: float) -> Point:
    """Learning saturates in c and in the step, damage goes with their square."""
    zero, done = _zero(), scale * fraction
    rise = TEXT[task] * damage * done**2
    moved = {name: 0.5 * rise if name != "mmlu" else -0.2 * rise for name in ORDER if name != task}
    benchmarks = {name: {**zero.benchmarks[name], "nll": BASE + change} for name, change in moved.items()}
    benchmarks |= {"text": {"nll": 3 + rise}, "text_sampled": {"nll": 3 + 0.8 * rise}}
    own: dict[str, Metrics] = {task: {"nll": BASE - GAIN * learned * (1 - (1 - done) ** 2), "n": 100.0}}
    return Point(
        scale=scale, fraction=fraction, norm=10 * done, top_share=0.2, learning=own, benchmarks={**benchmarks, **own}
    )
