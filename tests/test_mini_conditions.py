"""When each condition of the mini scale holds, on runs whose numbers are made up."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from mini_conditions import CHECKS, ITEMS, SEEDS, Scored

from hiplora.tasks import ORDER
from hiplora.tasks.source import Data

GAIN, SPREAD = 0.5, 0.1  # of four items: two gain a spread more than the gain, two a spread less
TWO_ERRORS = 2 / math.sqrt(3)  # two standard errors of such a gain, in units of the spread


@dataclass(frozen=True)
class Made:
    """Runs that meet every condition, except where a number is ``changed``: one task's of the last seed, or all."""

    changed: dict[str, Any]

    def number(self, name: str, plain: Any, seed: int = SEEDS[-1]) -> Any:
        return self.changed.get(name, plain) if seed == SEEDS[-1] else plain

    def backbone(self) -> Any:
        def value(benchmark: str, metric: str) -> Any:
            return self.number(f"{benchmark} {metric}", {"acc": 0.5, "pass@1": 0.3}[metric])

        samples = [{"log_probs": [0.0] * 4}, {"log_probs": [0.0] * 4}]  # a chance of a quarter
        return SimpleNamespace(
            value=value, nll=lambda of: 3.0, samples=lambda of: samples, per_item=lambda of: dict.fromkeys("abcd", 0.0)
        )

    def adapted(self, task: str, seed: int) -> Any:
        gain = self.number(f"{task} gain", GAIN, seed)
        items = {"a": gain + SPREAD, "b": gain - SPREAD, "c": gain - SPREAD, "d": gain + SPREAD} if gain else None
        rises = {"text": self.number(f"{task} rise", self.changed.get("rise", 0.1), seed), "text_sampled": 9.0}
        own = -self.number(f"{task} learned", 1.0, seed)
        return SimpleNamespace(
            value=lambda of, metric: self.number(f"LoRA's {of} {metric}", 0.6, seed),
            nll=lambda of: 3.0 + rises.get(of, own),
            per_item=lambda of: items,
        )

    def merged(self, seed: int) -> Any:
        return SimpleNamespace(nll=lambda task: 3.0 - self.changed.get("kept", 0.5))

    def config(self) -> Any:
        def task(name: str) -> Any:
            def items(source: Any, split: str) -> range:
                return range(self.number(f"{name} {split}", ITEMS[name]))

            return SimpleNamespace(name=name, test_items=items)

        return SimpleNamespace(
            data=Data(name="mini", root=None, revisions={}), benchmarks=[task(name) for name in ORDER]
        )


@pytest.mark.parametrize("condition", ["C1", "C2", "C3", "C4", "C6"])
def test_plain_runs_meet_every_condition(condition: str) -> None:
    assert CHECKS[condition](Made({})).passed  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("condition", "name", "good", "bad"),
    [
        ("C1", "mmlu acc", 0.36, 0.34),  # chance and 10 pp
        ("C1", "scienceqa acc", 0.74, 0.75),
        ("C1", "code pass@1", 0.15, 0.14),
        ("C1", "code pass@1", 0.60, 0.61),
        ("C1", "LoRA's code pass@1", 0.85, 0.86),
        ("C1", "LoRA's code pass@1", 0.0, None),  # not executed
        ("C2", "code gain", 1.01 * TWO_ERRORS * SPREAD, 0.99 * TWO_ERRORS * SPREAD),
        ("C2", "mmlu gain", GAIN, -GAIN),
        ("C2", "code gain", GAIN, None),  # not executed
        ("C3", "rise", 0.49, 0.51),  # of all four
        ("C3", "mmlu rise", 0.29, 0.31),  # the three others rise by 0.1 each
        ("C3", "code rise", -5.0, 0.31),
        ("C4", "kept", 0.21, 0.19),
        ("C4", "kept", 0.79, 0.81),
        ("C4", "code learned", 0.5, 0.0),  # without a gain there is no share of it
        ("C6", "mmlu validation", 301, 299),
        ("C6", "code test", 80, 79),
    ],
)
def test_a_single_number_decides(condition: str, name: str, good: Any, bad: Any) -> None:
    check = CHECKS[condition]
    assert [check(Made({name: value})).passed for value in (good, bad)] == [True, False]  # type: ignore[arg-type]


def test_what_is_compared_of_an_item() -> None:
    """Higher is better: the likelihood where an adapter is trained on no benchmark, else right answers."""

    def compared(task: str, **sample: Any) -> Any:
        return Scored.per_item(SimpleNamespace(samples=lambda of: [{"id": "x", **sample}]), task)  # type: ignore[arg-type]

    assert compared("mmlu", nll=2.0, acc=1.0) == {"x": -2.0}
    assert compared("gsm8k", nll=2.0, acc=1.0) == {"x": 1.0}
    assert compared("code", nll=2.0, verdicts=["passed", "failed", "timeout", "failed"]) == {"x": 0.25}
    assert compared("code", nll=2.0) is None
