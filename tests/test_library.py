"""The library works where the suite's packages are not installed; here they are hidden from a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.test_architecture import FILES, LIBRARY, files_imported, is_command, part
from tests.tiny import tiny_llama_folder

ROOT = Path(__file__).parents[1]
BELOW = {"accelerate", "jinja2"}  # PEFT and torch need these, so that they are where the library is


def named(packages: Iterable[str]) -> set[str]:
    """The names in requirements, spelt in one way."""
    return {re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", package)[0]).lower() for package in packages}


def of_the_suite_alone() -> list[str]:
    """The modules of what only the suite installs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    suite = named(project["optional-dependencies"]["suite"]) - named(project["dependencies"]) - BELOW
    return sorted(module for module, packages in packages_distributions().items() if named(packages) & suite)


HIDDEN = of_the_suite_alone()
HEAD = f"""
import importlib.util
import sys

HIDDEN = {HIDDEN!r}


class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in HIDDEN else self.finder.find_spec(name, path, target)


sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
assert not any(importlib.util.find_spec(name) for name in HIDDEN)
"""
USE = """
from importlib import import_module

for name in MODULES:
    import_module(name)

import torch
from peft import PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from hiplora import HipLoraConfig, export_lora
from hiplora.merging.__main__ import main as merge

def load():
    return AutoModelForCausalLM.from_pretrained("backbone")

ids = torch.arange(2, 20)[None]
for seed, name in enumerate(("first", "second")):
    torch.manual_seed(seed)
    options = {"r": 2, "k": 3, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
    model = get_peft_model(load(), HipLoraConfig(**options)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(name)
expected = model(ids).logits
export_lora("second", "plain", backbone="backbone")
torch.testing.assert_close(PeftModel.from_pretrained(load(), "plain")(ids).logits, expected, rtol=1e-4, atol=1e-4)
assert merge("first second plain --operator addition --backbone backbone --out merged".split()) == 0
assert type(PeftModel.from_pretrained(load(), "merged").base_model).__name__ == "LoraModel"
assert not [name for name in sys.modules if name.partition(".")[0] in HIDDEN]
"""


def in_hiding(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": paths, "HIPLORA_CACHE": str(folder / "cache")}
    return subprocess.run(
        [sys.executable, "-c", HEAD + script], capture_output=True, text=True, cwd=folder, env=environment
    )


def test_the_library_imports_nothing_of_the_suite() -> None:
    for name, path in FILES.items():
        if part(name) in LIBRARY and not is_command(name):
            needed = {part(other) for other in files_imported(path)} - {*LIBRARY, ""}
            assert not needed, f"{name} is of the library and imports {needed}"


def test_tuner_export_and_merge_work_without_the_suite(tmp_path: Path) -> None:
    tiny_llama_folder(tmp_path / "backbone")
    modules = sorted(name for name in FILES if part(name) in LIBRARY)
    done = in_hiding(f"MODULES = {modules!r}\n{USE}", tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "command", ["hiplora", "hiplora.run", "hiplora.reproduce", "hiplora.runs", "hiplora.report", "hiplora.spectral"]
)
def test_a_command_of_the_suite_says_what_to_install(command: str, tmp_path: Path) -> None:
    done = in_hiding(
        f"import runpy; sys.argv[1:] = ['verify']; runpy.run_module({command!r}, run_name='__main__')", tmp_path
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: hydra is not installed")
    assert done.stderr.count("\n") == 1
