"""The exported LoRA is the same update, readable by a PEFT that knows nothing of this project."""

from __future__ import annotations

import json
import stat
import textwrap

import pytest
import torch
from peft import PeftModel, get_peft_model

from hiplora.adapters.exporting import export_lora
from hiplora.errors import UserError
from hiplora.tuner.export import main
from tests.commands import scripted
from tests.limits import gone_reader, small_files
from tests.tuner.helpers import K, R, config, logits, make_llama, make_mlp, mlp_config, perturb, trained

VARIANTS = {
    "hip": ({}, K + R),
    "relative-with-basis": ({"parameterization": "relative", "save_basis": True}, K + R),
    "proj": ({"principal": False}, R),
    "inside-random": ({"principal": False, "basis": "random", "side": "inside"}, R),
    "patterns": ({"rank_pattern": {"v_proj": 5, "1.self_attn.q_proj": 1}, "use_rslora": True}, K + 5),
    "alphas": ({"alpha_pattern": {"layers.0.self_attn.q_proj": 1}, "modules_to_save": ["lm_head"]}, K + R),
}


@pytest.mark.parametrize(("changes", "rank"), VARIANTS.values(), ids=VARIANTS)
def test_export_gives_the_same_logits(tmp_path, ids, changes, rank):
    model = trained(make_llama(), options=config(**changes))
    if "modules_to_save" in changes:
        model.base_model.model.lm_head.modules_to_save["default"].weight.data *= 1.2
    model.save_pretrained(tmp_path / "adapter")
    backbone = None if changes.get("save_basis") or rank == R else make_llama()
    assert export_lora(tmp_path / "adapter", tmp_path / "lora", backbone=backbone) == tmp_path / "lora"
    written = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    assert (written["peft_type"], written["r"], written["lora_alpha"]) == ("LORA", rank, rank)
    parts = f": {K} singular directions and a residual of rank {rank - K}" if changes.get("principal", True) else ""
    assert f"| Rank | {rank}{parts} |" in (tmp_path / "lora" / "README.md").read_text()
    stock = PeftModel.from_pretrained(make_llama(), tmp_path / "lora")
    torch.testing.assert_close(logits(stock, ids), logits(model, ids), rtol=1e-5, atol=2e-5)
    assert all(layer.scaling["default"] == 1 for layer in stock.modules() if hasattr(layer, "lora_A"))


def test_other_models_and_other_trained_parts_go_along(tmp_path):
    x = torch.randn(3, 7)
    model = get_peft_model(make_mlp(), mlp_config(bias="all", modules_to_save=["head"]))
    perturb(model)
    model.base_model.model.first.bias.data += 1
    model.base_model.model.head.modules_to_save["default"].weight.data += 1
    model.save_pretrained(tmp_path / "adapter")
    export_lora(tmp_path / "adapter", tmp_path / "lora", backbone=make_mlp())
    stock = PeftModel.from_pretrained(make_mlp(), tmp_path / "lora")
    torch.testing.assert_close(stock(x), model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.e2e
def test_command_line_then_a_python_without_this_project(tmp_path, ids, capsys):
    make_llama().save_pretrained(tmp_path / "backbone")
    model = trained(make_llama())
    model.save_pretrained(tmp_path / "adapter")
    arguments = [str(tmp_path / "adapter"), str(tmp_path / "lora"), "--backbone", str(tmp_path / "backbone")]
    assert main(arguments) == 0
    torch.save({"ids": ids, "logits": logits(model, ids)}, tmp_path / "expected.pt")
    script = f"""
        import sys
        sys.modules["hiplora"] = None  # any import of it fails
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM
        expected = torch.load({str(tmp_path / "expected.pt")!r})
        backbone = AutoModelForCausalLM.from_pretrained({str(tmp_path / "backbone")!r})
        model = PeftModel.from_pretrained(backbone, {str(tmp_path / "lora")!r})
        with torch.no_grad():
            logits = model(expected["ids"]).logits
        torch.testing.assert_close(logits, expected["logits"], rtol=1e-5, atol=2e-5)
    """
    done = scripted(textwrap.dedent(script))
    assert done.returncode == 0, done.stderr
    assert main([str(tmp_path / "lora"), str(tmp_path / "again")]) == 2
    assert "holds a LORA adapter" in capsys.readouterr().err


def test_export_refuses_what_it_cannot_do_exactly(tmp_path):
    trained(make_llama()).save_pretrained(tmp_path / "adapter")
    with pytest.raises(UserError, match="another backbone"):
        export_lora(tmp_path / "adapter", tmp_path / "lora", backbone=make_llama(seed=1))
    with pytest.raises(UserError, match="--backbone"):
        export_lora(tmp_path / "adapter", tmp_path / "lora")
    with pytest.raises(UserError, match="--backbone"):
        export_lora(tmp_path / "adapter", tmp_path / "lora", backbone=tmp_path / "nothing")
    with pytest.raises(UserError, match="has no module"):
        export_lora(tmp_path / "adapter", tmp_path / "lora", backbone=make_mlp())
    with pytest.raises(UserError, match=r"adapter_config\.json"):
        export_lora(tmp_path / "nothing", tmp_path / "lora")
    with pytest.raises(UserError, match="one of the inputs"):
        export_lora(tmp_path / "adapter", tmp_path / "adapter")
    assert not (tmp_path / "lora").exists()


def test_an_export_is_whole_or_as_it_was(tmp_path, capsys):
    """With a full disk, with other files in the folder, and with a damaged adapter."""
    make_llama().save_pretrained(tmp_path / "backbone")
    trained(make_llama()).save_pretrained(tmp_path / "adapter")
    out, backbone = tmp_path / "lora", str(tmp_path / "backbone")
    arguments = [str(tmp_path / "adapter"), str(out), "--backbone", backbone]
    assert main(arguments) == 0
    weights = out / "adapter_model.safetensors"
    assert stat.S_IMODE(weights.stat().st_mode) == 0o644
    for place, held in (
        (tmp_path / "other", []),
        (out, ["README.md", "adapter_config.json", "adapter_model.safetensors", "hiplora_output.json"]),
    ):
        with small_files():
            assert main([arguments[0], str(place), *arguments[2:]]) == 2
        assert f"Cannot write {place}: " in capsys.readouterr().err
        assert sorted(path.name for path in place.glob("*")) == held
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "backbone", "lora"]
    with gone_reader():
        assert main(arguments) == 0, "an earlier export is replaced"

    (out / "notes.txt").write_text("mine")
    for place, sentence in ((out, "another file"), (out / "notes.txt", "is a file")):
        assert main([arguments[0], str(place), *arguments[2:]]) == 2
        assert sentence in capsys.readouterr().err
    torn = tmp_path / "adapter" / "adapter_model.safetensors"
    torn.write_bytes(torn.read_bytes()[:1000])
    assert main([arguments[0], str(tmp_path / "again"), *arguments[2:]]) == 2
    assert "cannot be read" in capsys.readouterr().err
    for text in ("{", "[]"):
        (tmp_path / "adapter" / "adapter_config.json").write_text(text)
        assert main([arguments[0], str(tmp_path / "again"), *arguments[2:]]) == 2
        assert "adapter_config.json is not valid JSON" in capsys.readouterr().err
