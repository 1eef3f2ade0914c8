"""OSF: PEFT's own, decomposed in fp32 so that what is stored means the same where it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from hiplora.errors import UserError
from hiplora.updates import Dense
from tests.training.worker import OPTIONS, TRAINING, attached, fit, same


def layers(model: Any) -> dict[str, Any]:
    return {n: m for n, m in model.get_base_model().named_modules() if hasattr(m, "osf_svd_params")}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_saved_loaded_and_unloaded_bit_for_bit(tiny: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    method, ids = OPTIONS["osf"], torch.arange(2, 20)[None]
    model = attached(tiny, method, dtype=dtype)
    fit(model, tiny, method, tmp_path / "checkpoints")
    method.save(model, tmp_path / "stored")
    kept = {n: p.detach().clone() for n, p in model.named_parameters() if "osf_svd_params" in n}
    updates, adapted = method.updates(model), model(ids).logits.detach()
    assert all(isinstance(update, Dense) and update.norm() > 1e-3 for update in updates.values())

    bare = method.detach(model)
    plain = AutoModelForCausalLM.from_pretrained(tiny, dtype=dtype)
    assert same(dict(bare.state_dict()), dict(plain.state_dict()))
    loaded = method.load(bare, tmp_path / "stored")
    assert same({n: p.detach() for n, p in loaded.named_parameters() if "osf_svd_params" in n}, kept)
    assert same({n: u.dense() for n, u in method.updates(loaded).items()}, {n: u.dense() for n, u in updates.items()})
    assert torch.equal(loaded(ids).logits, adapted)
    if dtype is torch.float32:  # W' − W
        with torch.no_grad():
            for name, update in updates.items():
                plain.get_submodule(name).weight += update.dense()
        torch.testing.assert_close(plain(ids).logits, adapted, rtol=1e-4, atol=1e-4)


def test_singular_vectors_of_another_machine_leave_the_update(tiny: Path) -> None:
    """Signs are arbitrary in any SVD; in bf16 the start is what the weight holds all the same."""
    method = OPTIONS["osf"]
    model = attached(tiny, method, dtype=torch.bfloat16)
    for name, layer in layers(model).items():
        U, S, V = (getattr(layer, f"_osf_{part}_low_init")["default"] for part in "USV")
        assert {part.dtype for part in (U, S, V)} == {torch.float32}
        u, s, vh = torch.linalg.svd(layer.get_base_layer().weight.float(), full_matrices=False)
        torch.testing.assert_close((U * S) @ V, (u * s)[:, len(s) // 2 :] @ vh[len(s) // 2 :], rtol=0, atol=1e-5)
        assert len(S) == len(s) - len(s) // 2, name


def test_gradients_leave_the_frozen_directions(tiny: Path) -> None:
    method = OPTIONS["osf"]
    model = attached(tiny, method)
    model(torch.arange(2, 20)[None]).logits.square().mean().backward()
    for layer in layers(model).values():
        u, s, vh = torch.linalg.svd(layer.get_base_layer().weight, full_matrices=False)
        trained = layer.osf_svd_params["default"]
        scale = trained["U_low"].grad.norm()
        assert (u[:, : len(s) // 2].mT @ trained["U_low"].grad).norm() < 1e-4 * scale
        assert (vh[: len(s) // 2] @ trained["V_low"].grad.mT).norm() < 1e-4 * trained["V_low"].grad.norm()


def test_the_learning_rate_of_its_group(tiny: Path) -> None:
    method: Any = OPTIONS["osf"].but(lr_scale=0.1)
    (group,) = method.param_groups(attached(tiny, method), training=TRAINING)
    assert group["lr"] == pytest.approx(0.1 * TRAINING.lr)


def test_a_share_that_keeps_nothing_is_refused() -> None:
    OPTIONS["osf"].check({"q": (64, 64)})
    with pytest.raises(UserError, match=r"method\.preserve=0\.01 keeps no direction of q \(64 × 64\)"):
        OPTIONS["osf"].but(preserve=0.01).check({"q": (64, 64)})
    with pytest.raises(UserError, match=r"method\.preserve=1.* must be below 1"):
        OPTIONS["osf"].but(preserve=1.0)
