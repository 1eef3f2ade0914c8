from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hiplora import models
from hiplora.compose import compose
from hiplora.methods.base import Setup
from hiplora.spectral import Basis, truncated_svd
from hiplora.spectral.__main__ import main
from hiplora.spectral.verify import compare
from tests.limits import gone_reader
from tests.spectral.known import known_svd
from tests.tiny import tiny_llama_folder


def test_comparison_measures_a_turned_direction() -> None:
    values = torch.tensor([4.0, 3.0, 2.0, 1.0])
    weight, U, V = known_svd(12, 9, values)
    angle = 0.2
    turned = V[:, :2].clone()
    turned[:, 1] = V[:, 1] * math.cos(angle) + V[:, 2] * math.sin(angle)
    row = compare("w", weight, Basis(U[:, :2].float(), values[:2], turned.float(), 0.0), 2)
    assert row.angle == pytest.approx(math.degrees(angle), rel=1e-4)
    # ‖W − U Σ V'ᵀ‖² = 2² + 1² + ‖3 v_2 − 3 v'_2‖², against 2² + 1²
    worse = math.sqrt(5 + 9 * (2 - 2 * math.cos(angle)) + 0)
    assert row.excess == pytest.approx(worse / math.sqrt(5) - 1, rel=1e-4)
    assert row.gap == pytest.approx(0.25, rel=1e-4)


@pytest.mark.parametrize("recipe", ["exact", "converged"])
def test_comparison_finds_nothing_wrong_with_the_solvers(recipe: str) -> None:
    weight = known_svd(60, 300, torch.linspace(1, 0, 60))[0]
    row = compare("w", weight, truncated_svd(weight, k=16, recipe=recipe, tolerance=1e-6), 8)
    assert row.residual < 1e-5
    assert row.excess < 1e-6
    assert row.angle < 0.1


def test_full_rank_and_zero_weights_have_no_excess() -> None:
    for weight in (torch.eye(5), torch.zeros(5, 7)):
        row = compare("w", weight, truncated_svd(weight, k=5), 5)
        assert row.excess == 0


@pytest.fixture
def backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Overrides that choose the tiny model; an empty cache of its own."""
    monkeypatch.setenv("HIPLORA_CACHE", str(tmp_path / "cache"))
    yield ["model=folder", f"model.path={tiny_llama_folder(tmp_path / 'model')}", "model.device=cpu"]
    models.forget()


def rows(printed: str) -> list[str]:
    """Names of the matrices in the printed table."""
    return [line.split()[0] for line in printed.splitlines() if "self_attn" in line]


@pytest.mark.parametrize(
    "settings", [[], ["svd.recipe=randomized", "svd.oversampling=3", "svd.k_max=12", "svd.seed=1"]]
)
def test_command_verifies_the_file_that_a_run_reads(
    backbone: list[str], settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = compose([*backbone, *settings, "method.k=12", "method.r=2"])
    setup = Setup(targets=config.model.target_modules, svd=config.svd, training=config.training)
    adapted = config.method.attach(models.load(config.model).model, setup=setup)
    key = adapted.peft_config["default"].svd_key
    config.method.detach(adapted)
    (file,) = (tmp_path / "cache" / "svd").glob("*.safetensors")
    assert main(["verify", "--k", "8", *backbone, "--limit", "3", *settings]) == 0
    printed = capsys.readouterr().out
    assert f"key {key}" in printed
    assert f"8 of {config.svd.k_max} directions, read from {file}" in printed
    assert rows(printed) == [f"model.layers.0.self_attn.{name}_proj" for name in ("q", "k", "v")]
    assert printed.splitlines()[-1].startswith("worst of 3")
    assert list((tmp_path / "cache" / "svd").glob("*.safetensors")) == [file]


def test_command_computes_what_no_run_has_yet(backbone: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    command = ["verify", "--matrix", "1.self_attn.v_proj", "--matrix", "o_proj", *backbone]
    assert main(command) == 0
    first = capsys.readouterr().out
    assert "computed now" in first
    assert [name.removeprefix("model.layers.") for name in rows(first)] == [
        "0.self_attn.o_proj", "1.self_attn.v_proj", "1.self_attn.o_proj"
    ]  # fmt: skip
    assert main(command) == 0
    assert "read from" in capsys.readouterr().out
    with gone_reader():  # as by | head
        assert main(command) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["model=folder", "model.path=/absent"], "does not exist"),
        (["svd.recipe=fast"], "choose one of auto, exact"),
        (["--k", "65"], "svd.k_max=64"),
        (["--limit", "0"], "--limit 0"),
        (["--matrix", "q"], "such as model.layers.0.self_attn.q_proj"),
    ],
)
def test_command_explains_a_mistake(
    backbone: list[str], words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", *backbone, *words]) == 2
    assert told in capsys.readouterr().err
