from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from hiplora.spectral import Basis, truncated_svd
from hiplora.spectral.__main__ import main
from hiplora.spectral.verify import compare
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


def test_command_prints_a_row_per_matrix_and_the_worst(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny_llama_folder(tmp_path / "model")
    options = ["verify", "--model-dir", str(folder), "--k", "8", "--cache-dir", str(tmp_path), "--limit", "3"]
    assert main(options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:5]] == [
        f"model.layers.0.self_attn.{name}_proj" for name in ("q", "k", "v")
    ]
    assert lines[-1].startswith("worst of 3")


def test_command_explains_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--model-dir", str(tmp_path / "absent")]) == 2
    assert "does not exist" in capsys.readouterr().err
