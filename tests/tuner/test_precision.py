"""Directions and projections are computed with fp32 products, also where TF32 is switched on."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode

from tests.tuner.helpers import config, make_llama, trained

MATMUL = torch.backends.cuda.matmul


class Products(TorchDispatchMode):
    """Notes the precision at which fp32 matrix products would run on a GPU."""

    def __init__(self):
        super().__init__()
        self.precisions = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default) and args[0].dtype == torch.float32:
            self.precisions.add(MATMUL.fp32_precision)
        return func(*args, **(kwargs or {}))


@contextmanager
def setting(backend, precision):
    before = backend.fp32_precision
    backend.fp32_precision = precision
    try:
        yield
    finally:
        backend.fp32_precision = before


def precisions(work):
    with Products() as products:
        work()
    assert MATMUL.fp32_precision == "tf32", "the setting is as it was"
    return products.precisions


@pytest.mark.parametrize("switch", [MATMUL, torch.backends], ids=["matmul", "all"])
def test_tf32_is_off_for_directions_and_projections_alone(switch, tmp_path):
    with setting(switch, "tf32"):
        for name, options in {
            "converged": {"svd_recipe": "converged"},
            "randomized": {"svd_recipe": "randomized"},
            "random": {"principal": False, "basis": "random"},
        }.items():
            chosen = config(svd_cache_dir=str(tmp_path / "cache"), **options)
            assert precisions(lambda chosen=chosen: get_peft_model(make_llama(), chosen)) == {"ieee"}, name
        model = trained(make_llama(), options=config(save_basis=True))
        assert precisions(model.retract) == {"ieee"}
        model.save_pretrained(tmp_path / "adapter")
        assert precisions(lambda: PeftModel.from_pretrained(make_llama(), tmp_path / "adapter")) == {"ieee"}
    with setting(torch.backends, "ieee"):
        assert MATMUL.fp32_precision == "ieee", "it follows the setting of all backends, as before"
