"""What scripts/same_numbers.py takes for the same and for a difference, without running anything."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from scripts.same_numbers import Side, cases, chosen, difference, renamed, scores, tensor_difference

OLD = {"schema": 1, "pipeline": "single", "metrics": {"adapted": {"gsm8k": {"acc": 0.5, "n": 20, "nll": None}}}}
NEW = {
    "schema": 2,
    "kind": "score",
    "asked": {"of": {"kind": "adapter"}},
    "result": {"benchmarks": {"gsm8k": {"acc": 0.5}}},
}


def side(folder: Path, record: dict, tensor: torch.Tensor) -> Side:
    """A checkout's folder with one finished case, ``lora``."""
    left = ["results/mini/records/x/r.json", "outputs/adapters/a/adapter_model.safetensors"]
    for name in (*left, "cases/lora.json"):
        (folder / name).parent.mkdir(parents=True)
    (folder / left[0]).write_text(json.dumps(record))
    save_file({"w": tensor}, folder / left[1])
    (folder / "cases/lora.json").write_text(json.dumps({"left": left}))
    return Side(folder, folder, (), "python", {})


def changed(value: float | None) -> dict:
    return {**NEW, "result": {"benchmarks": {"gsm8k": {"acc": value}}}}


@pytest.mark.parametrize(
    ("record", "tensor", "said"),
    [
        (NEW, torch.ones(3), None),
        (
            NEW,
            torch.tensor([1.0, 1.0 + 2**-23, 2.0]),
            "tensor w: 2 of 3 values, the first at 1: 1.0 and 1.0000001192092896",
        ),
        (NEW, torch.ones(4), r"tensor w: torch.float32 [3] and torch.float32 [4]"),
        (changed(math.nextafter(0.5, 1)), torch.ones(3), "metric adapter gsm8k acc: 0.5 and 0.5000000000000001"),
        (changed(None), torch.ones(3), "metric adapter gsm8k acc: only in BASELINE"),
    ],
)
def test_two_schemas_compare_to_the_last_digit(tmp_path, record, tensor, said):
    assert (
        difference(side(tmp_path / "old", OLD, torch.ones(3)), side(tmp_path / "new", record, tensor), "lora") == said
    )


def test_tensors_compare_bit_by_bit():
    nan, zero = torch.tensor([math.nan]), torch.tensor(0.0, dtype=torch.bfloat16)
    assert tensor_difference(nan, nan.clone()) is None
    assert tensor_difference(zero, -zero) == "1 of 1 values, the first at 0: 0.0 and -0.0"


def test_a_merge_is_its_tasks_and_general_text():
    instance = {"after": {"code": {"nll": 1.0}}, "before": {"code": {"nll": 0.5}}, "text": {"nll": 2.0}}
    old = {"schema": 1, "pipeline": "merge", "metrics": {"instances": [instance]}}
    new = {
        **NEW,
        "asked": {"of": {"kind": "merged"}},
        "result": {"benchmarks": {"code": {"nll": 1.0}, "text": {"nll": 2.0}}},
    }
    assert [*scores(old)] == [*scores(new)]
    assert not [*scores({"schema": 2, "kind": "train"})]


def test_what_a_case_needs_is_made_before_it():
    for name, case in cases().items():
        assert [*chosen(name)] == [*case.needs, name]
    with pytest.raises(SystemExit, match="choose among hip"):
        chosen("lora,tie")
    assert renamed(["merging.sizes=[2]", "seed=42"], ["merging.=pipeline."]) == ("pipeline.sizes=[2]", "seed=42")
