"""What operators refuse in one sentence: options, adapters that do not match, results that are not finite."""

from __future__ import annotations

import pytest
import torch

from hiplora.errors import UserError
from hiplora.merging import OPERATORS, merge, operator_class
from hiplora.updates import LowRank
from tests.merging.makers import adapter, dense, full, seeded

FACTORED = [name for name in OPERATORS if not operator_class(name).accepts_dense]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"operator": "sum"}, "merge=sum is not known; choose one of addition"),
        ({"operator": "addition", "density": 0.2}, "has no option density"),
        ({"operator": "ties", "density": 1.5}, r"merge.density=1.5 must be at most 1, e.g. 0.2"),
        ({"operator": "ties", "density": 0.0}, "merge.density=0 must be above 0, e.g. 0.2"),
        ({"operator": "knots", "density": -0.1}, "merge.density=-0.1 must be above 0"),
        ({"operator": "core_space", "density": float("nan")}, "merge.density=nan must be"),
        ({"operator": "core_space", "rule": "tie"}, "merge.rule=tie is not known; choose one of ties, tsvm, addition"),
        ({"operator": "della", "window": -0.1}, "merge.window=-0.1 must be at least 0"),
        ({"operator": "della", "drop": 1 - 1e-9, "window": 1e-9}, r"leaves \[0, 1\)"),
        ({"operator": "ties", "threshold": "layer"}, "merge.threshold=layer"),
        ({"operator": "dare", "drop": 1.0}, "merge.drop=1 must be below 1, e.g. 0.8"),
        ({"operator": "della", "drop": 0.95}, "merge.window=0.2"),
        ({"operator": "ties", "calibration": "pica"}, "merge.calibration=pica"),
    ],
)
def test_wrong_options_are_refused_in_one_sentence(arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        merge([adapter(1)], **arguments)


@pytest.mark.parametrize("name", [name for name in OPERATORS if "scale" in operator_class(name).model_fields])
def test_scales_without_a_sense_are_refused(name):
    for scale in (float("nan"), float("inf"), -float("inf")):
        with pytest.raises(UserError, match=r"merge\.scale=.*must be a finite number"):
            merge([adapter(1)], name, scale=scale)
    with pytest.raises(UserError, match=r"merge\.scale=0 merges to nothing; give another number"):
        merge([adapter(1)], name, scale=0.0)
    for scale in (1e300, -1e300, 1e-300):
        with pytest.raises(UserError, match=r"merge\.scale=.* must be from 1e-4 to 1e4 in magnitude"):
            merge([adapter(1)], name, scale=scale)


def test_adapters_that_do_not_match_are_refused():
    fewer = {n: u for n, u in adapter(2).items() if n != "a.v_proj"}
    with pytest.raises(UserError, match=r"adapt different modules .a\.v_proj"):
        merge([adapter(1), fewer], "addition")
    other = {**adapter(2), "a.v_proj": LowRank(torch.ones(5, 1), torch.ones(1, 10))}
    with pytest.raises(UserError, match="backbone"):
        merge([adapter(1), other], "addition")
    broken = {**adapter(2), "a.v_proj": adapter(2)["a.v_proj"].scaled(float("nan"))}
    with pytest.raises(UserError, match=r"adapter 2 holds values that are not finite in a\.v_proj"):
        merge([adapter(1), broken], "ties")
    with pytest.raises(UserError, match="nothing to merge"):
        merge([], "addition")


@pytest.mark.parametrize("name", FACTORED)
def test_factor_operators_refuse_full_rank_updates_by_name(name):
    with pytest.raises(UserError, match=f"merge={name} .* dora-gsm8k has a full-rank update"):
        merge([adapter(1), full(2)], name, labels=["lora-mmlu", "dora-gsm8k"], calibration="pico")


@pytest.mark.parametrize("name", OPERATORS)
def test_a_merged_update_that_is_not_finite_is_refused_by_name(name):
    huge = {n: u.scaled(1e20) if n == "a.v_proj" else u for n, u in adapter(1).items()}
    huge["a.v_proj"] = LowRank(huge["a.v_proj"].B, huge["a.v_proj"].A * 1e20)
    with pytest.raises(UserError, match=r"merged update of a\.v_proj is not finite.* float32"):
        dense(merge([huge, adapter(2)], name, generator=seeded()).updates)
