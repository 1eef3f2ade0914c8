"""The probe: which directions it draws, what an intervention does to the model, and that a stopped one goes on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

from hiplora import models
from hiplora.compose import compose
from hiplora.errors import UserError
from hiplora.evaluation import engine
from hiplora.parts import Parts
from hiplora.stages.probe import Probe, choose, in_layers
from hiplora.tasks.source import Source
from tests.tiny import SMALL, tiny_llama_folder

ROUNDING = 3e-7  # of an NLL in fp32
SIGMA = {"a": [9.0, 5.0, 3.0, 1.0], "b": [8.0, 6.0, 4.0, 2.0]}


def test_one_direction_from_every_quantile_bin_of_sigma():
    chosen = choose(SIGMA, count={"zero": 4}, strength=0.1, seed=42)
    ranks = sorted(value for values in SIGMA.values() for value in values)
    assert [ranks.index(SIGMA[each.matrix][each.direction]) // 2 for each in chosen] == [0, 1, 2, 3]
    assert {each.coefficient for each in chosen} == {-1.0}


def test_a_draw_depends_on_seed_and_perturbation_alone():
    both = choose(SIGMA, count={"flip": 3, "noise": 8}, strength=0.1, seed=1)
    assert both[3:] == choose(SIGMA, count={"noise": 8}, strength=0.1, seed=1)
    assert {each.coefficient for each in both[:3]} == {-2.0}
    assert len({each.coefficient for each in both[3:]}) == 8
    assert len({(each.matrix, each.direction) for each in both[3:]}) == 8


def test_noise_is_normal_with_the_strength_as_its_standard_deviation():
    sigma = {"a": [float(value) for value in range(1000)]}
    weak, strong = (
        np.array([each.coefficient for each in choose(sigma, count={"noise": 1000}, strength=strength, seed=1)])
        for strength in (0.1, 0.2)
    )
    assert strong == pytest.approx(2 * weak)
    assert stats.kstest(weak, "norm", args=(0, 0.1)).pvalue > 0.01


def test_more_interventions_than_directions_are_refused():
    with pytest.raises(UserError, match=r"pipeline.count.zero=9 exceeds the 8 directions"):
        choose(SIGMA, count={"zero": 9}, strength=0.1, seed=1)


def test_layers_are_spread_from_the_first_to_the_last():
    names = [f"model.layers.{i}.self_attn.{side}_proj" for i in range(10) for side in "qk"]
    assert in_layers(names, 2) == [*names[:2], *names[-2:]]
    assert in_layers(names, 4) == [names[2 * i + j] for i in (0, 3, 6, 9) for j in (0, 1)]
    assert in_layers(names, 40) == names


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Probe:
    folder = tiny_llama_folder(tmp_path_factory.mktemp("backbone"))
    words = ["pipeline=probe", f"model.path={folder}", "method.k=4", "pipeline.k=4", "pipeline.layers=2"]
    words += ["pipeline.count={zero:2,flip:1,noise:2}", "pipeline.items=3"]
    (wanted,) = compose([*SMALL, *words]).stages()
    return wanted.stage


def job(path: Path) -> SimpleNamespace:
    return SimpleNamespace(parts=Parts(path / "parts"))


def test_an_intervention_scores_the_model_whose_weight_is_changed_by_it(probe: Probe, tmp_path: Path):
    result = probe.run(job(tmp_path)).result
    backbone = models.load(probe.model)
    assert [each.perturbation for each in result.interventions] == ["zero", "zero", "flip", "noise", "noise"]
    for each in result.interventions:
        weight, i = backbone.model.get_submodule(each.matrix).weight, each.direction
        before = weight.detach().clone()
        U, S, Vh = torch.linalg.svd(before.double())
        assert each.sigma == pytest.approx(float(S[i]), rel=1e-5)
        with torch.no_grad():
            weight.copy_(before.double() + each.coefficient * S[i] * torch.outer(U[:, i], Vh[i]))
            edited = engine.evaluate(
                backbone.model,
                backbone.tokenizer,
                tasks=probe.benchmarks,
                source=Source(probe.data),
                evaluation=probe.evaluation,
            )
            weight.copy_(before)
        for name, scores in each.benchmarks.items():
            base = result.base[name]["nll"]
            change, expected = scores["nll"] - base, edited[name].metrics["nll"] - base
            assert abs(expected) > 20 * ROUNDING
            assert change == pytest.approx(expected, abs=ROUNDING)


def test_a_stopped_probe_goes_on_and_leaves_the_weights_as_they_were(probe: Probe, tmp_path: Path, monkeypatch):
    whole = probe.run(job(tmp_path / "whole")).result
    weights = {name: value.clone() for name, value in models.load(probe.model).model.state_dict().items()}
    evaluate, calls = engine.evaluate, []

    def stopping(*args, **kwargs):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(1)
        return evaluate(*args, **kwargs)

    monkeypatch.setattr(engine, "evaluate", stopping)
    with pytest.raises(KeyboardInterrupt):
        probe.run(job(tmp_path))
    for name, value in models.load(probe.model).model.state_dict().items():
        assert torch.equal(value, weights[name])
    left: list[int] = []
    monkeypatch.setattr(engine, "evaluate", lambda *args, **kwargs: left.append(1) or evaluate(*args, **kwargs))
    again = probe.run(job(tmp_path)).result
    assert again.reproducible() == whole.reproducible()
    assert len(left) == 6 - 3  # the base and five interventions, three of which were there


def test_a_benchmark_without_options_to_choose_from_is_refused():
    """Also where its code is not executed, so that nothing is written."""
    with pytest.raises(UserError, match=r"names code, which is not multiple choice; choose among mmlu, scie"):
        compose(["pipeline=probe", "pipeline.benchmarks=[code]", "evaluation.code_execution=off"]).stages()


def test_a_probe_computes_in_fp32_whatever_the_processor():
    (wanted,) = compose(["pipeline=probe", "model.dtype=bfloat16", "model.device=cpu"]).stages()
    assert wanted.stage.where() == "cpu-float32"
    with pytest.raises(UserError, match="computes in float32"):
        compose(["pipeline=probe", "model.arithmetic=bfloat16"]).stages()
