"""No command replaces what it cannot be sure to have written: export, merge and fold alike."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from hiplora.adapters.results import MARKER, result_folder
from hiplora.errors import UserError
from hiplora.merging.__main__ import main as merge
from hiplora.tuner.export import main as export
from tests.tuner.helpers import config, make_llama, trained

COMMANDS: dict[str, Callable[[Path, Path], int]] = {
    "export": lambda inputs, out: export([str(inputs / "hip"), str(out), "--backbone", str(inputs / "backbone")]),
    "merge": lambda inputs, out: merge([str(inputs / "lora"), "--operator", "addition", "--out", str(out)]),
    "fold": lambda inputs, out: merge(
        f"{inputs}/lora --operator addition --fold --backbone {inputs}/backbone --out {out}".split()
    ),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    make_llama().save_pretrained(folder / "backbone")
    trained(make_llama(), options=config(save_basis=True)).save_pretrained(folder / "hip")
    model = get_peft_model(make_llama(), LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    model.save_pretrained(folder / "lora")
    return folder


@pytest.fixture(params=COMMANDS)
def command(request, inputs) -> Callable[[Path], int]:
    return lambda out: COMMANDS[request.param](inputs, out)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("victim", ["hip", "lora", "backbone"])
def test_a_trained_adapter_and_a_model_are_never_replaced(command, victim, inputs, tmp_path, capsys):
    out = tmp_path / "mine"
    shutil.copytree(inputs / victim, out)
    before = content(out)
    assert command(out) == 2
    assert "holds something other than a result of" in capsys.readouterr().err
    assert content(out) == before
    assert command(inputs / victim) == 2, "an input, or a folder that is none"


def test_the_same_command_twice_gives_the_same_result(command, tmp_path):
    out = tmp_path / "out"
    assert command(out) == 0
    first = content(out)
    assert command(out) == 0
    assert content(out) == first
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_result_that_was_changed_or_joined_by_something_is_kept(command, tmp_path, capsys):
    out = tmp_path / "out"
    assert command(out) == 0
    names = [path.name for path in out.iterdir() if path.name != MARKER]
    for name in names:
        original = (out / name).read_bytes()
        (out / name).write_bytes(original + b" ")
        before = content(out)
        assert command(out) == 2
        assert f"{name} was changed since" in capsys.readouterr().err
        assert content(out) == before
        (out / name).write_bytes(original)
    for extra in ("notes.txt", "checkpoint-10/optimizer.pt"):
        (out / extra).parent.mkdir(exist_ok=True)
        (out / extra).write_text("mine")
        assert command(out) == 2
        assert Path(extra).parts[0] in capsys.readouterr().err
        assert (out / extra).read_text() == "mine"
        shutil.rmtree(out / "checkpoint-10") if "/" in extra else (out / extra).unlink()
    (out / MARKER).write_text("{}")
    assert command(out) == 2
    assert "something other" in capsys.readouterr().err


def test_a_result_that_was_trained_further_is_kept(inputs, tmp_path, capsys):
    """PEFT saves over the adapter that it loaded, under the same names of files."""
    out = tmp_path / "out"
    assert COMMANDS["export"](inputs, out) == 0
    model = PeftModel.from_pretrained(make_llama(), out, is_trainable=True)
    for parameter in model.parameters():
        parameter.data += 0.1
    model.save_pretrained(out)
    before = content(out)
    assert COMMANDS["export"](inputs, out) == 2
    assert "README.md was changed since" in capsys.readouterr().err
    (out / "README.md").unlink()  # PEFT's card, in the place of ours
    assert COMMANDS["export"](inputs, out) == 2
    assert "changed since" in capsys.readouterr().err
    assert content(out) == {name: held for name, held in before.items() if name != "README.md"}


def test_a_result_of_another_command_is_kept(inputs, tmp_path, capsys):
    assert COMMANDS["export"](inputs, tmp_path / "out") == 0
    assert COMMANDS["merge"](inputs, tmp_path / "out") == 2
    assert "holds a result of hiplora-export, not of hiplora-merge" in capsys.readouterr().err


def test_links_and_the_current_folder_are_written_through(command, tmp_path, capsys, monkeypatch):
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    for _ in range(2):
        assert command(link) == 0
    assert link.is_symlink()
    assert MARKER in content(real)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for _ in range(2):
        assert command(Path(".")) == 0
    assert content(here) == content(real)
    assert os.stat(".").st_ino == here.stat().st_ino
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    assert command(tmp_path / "circle") == 2
    assert "leads nowhere" in capsys.readouterr().err
    (tmp_path / "dangling").symlink_to(tmp_path / "later")
    assert command(tmp_path / "dangling") == 0
    assert content(tmp_path / "later") == content(real)


def test_what_appears_while_a_command_works_is_kept(tmp_path):
    out = tmp_path / "out"

    def work() -> None:
        with result_folder(out, command="hiplora-merge", option="--out") as folder:
            (folder / "adapter.json").write_text("new")
            out.mkdir()
            (out / "adapter.json").write_text("mine")

    with pytest.raises(UserError, match="something other"):
        work()
    assert content(out) == {"adapter.json": b"mine"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_fold_of_a_fold_has_its_own_marker_and_no_other_weights(inputs, tmp_path):
    backbone = tmp_path / "backbone"
    assert COMMANDS["fold"](inputs, backbone) == 0
    (backbone / "pytorch_model.bin").write_bytes(b"weights before the fold")
    out = tmp_path / "out"
    arguments = f"{inputs}/lora --operator addition --fold --backbone {backbone} --out {out}".split()
    for _ in range(2):
        assert merge(arguments) == 0
    assert not (out / "pytorch_model.bin").exists()
    marked = json.loads((out / MARKER).read_text())["files"]
    assert sorted([*marked, MARKER]) == sorted(path.name for path in out.iterdir())
    assert torch.isfinite(AutoModelForCausalLM.from_pretrained(out).lm_head.weight).all()
