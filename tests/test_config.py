"""Every option composes, every field says where its value comes from, and mistakes are refused in one sentence."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from hiplora import conf_dir
from hiplora.command_line import hydra_text, quoted_options
from hiplora.compose import compose
from hiplora.conf_dir import CONF_DIR
from hiplora.config import Options, digest
from hiplora.disk import FOLDERS
from hiplora.errors import UserError
from hiplora.merging import OPERATORS
from hiplora.methods import METHODS, method_class
from hiplora.pipelines import PIPELINES
from hiplora.report.experiment import load
from hiplora.tasks import TASKS
from hiplora.tasks.origins import ORIGINS
from tests.tiny import NEEDS

GROUPS = ("method", "task", "model", "pipeline", "scale", "data")
OPTIONS = [f"{group}={path.stem}" for group in GROUPS for path in sorted((CONF_DIR / group).glob("*.yaml"))]
MARK = re.compile(r"#.*\[(paper|review|lost|ours|corrected)\]")


@pytest.mark.parametrize("option", [*OPTIONS, "seed=42", "seed=100", "seed=2024", "seed=custom"])
def test_every_option_composes(option: str) -> None:
    config = compose([option, *NEEDS.get(option, [])])
    assert config.training.steps > 0


def test_a_file_that_changes_is_composed_as_it_is_then(monkeypatch, tmp_path) -> None:
    """Files are parsed once per process, and again where one has changed."""
    shutil.copytree(CONF_DIR, tmp_path / "conf")
    monkeypatch.setattr(conf_dir, "CONF_DIR", tmp_path / "conf")
    scale = tmp_path / "conf/scale/mini.yaml"
    for steps in (60, 7, 61):
        scale.write_text((CONF_DIR / "scale/mini.yaml").read_text().replace("  steps: 60 ", f"  steps: {steps} "))
        assert compose([]).training.steps == steps
        assert compose(["method=lora"]).training.steps == steps
    (tmp_path / "conf/selected/mini/lora.yaml").write_text("training:\n  steps: 8\n")
    assert compose(["method=lora"]).training.steps == 8


def test_what_was_selected_holds_for_a_method_and_its_controls(monkeypatch, tmp_path) -> None:
    """And for HiP-LoRA's other options until they have something of their own; what is typed comes first."""
    conf = tmp_path / "conf"
    shutil.copytree(CONF_DIR, conf)
    chosen = conf / "selected/mini"
    follows = (chosen / "hip_gated.yaml").read_text()
    for path in chosen.glob("*.yaml"):
        path.unlink()  # what a real selection has found
    for name in ("hip_gated", "hip_no_stability"):
        (chosen / f"{name}.yaml").write_text(follows)
    for name, rate in (("hip", 1e-3), ("proj", 2e-3)):
        (chosen / f"{name}.yaml").write_text(f"training:\n  lr: {rate}\n")
    monkeypatch.setattr(conf_dir, "CONF_DIR", conf)

    def rate(*words: str) -> float:
        return compose(list(words)).training.lr

    arms, place = ("proj", "proj_random", "inside_top", "inside_random"), {"task": "gsm8k", "seed": "42"}.items()
    proj = [run for run in load("table16").runs if run.point["method"] in arms and place <= run.point.items()]
    assert len(proj) == 4
    assert {rate(*run.overrides) for run in proj} == {2e-3}
    assert rate("method=hip", "method.stability=0") == rate("method=hip_gated") == rate("method=hip_no_stability")
    assert compose(["method=hip_gated"]).method == compose(["method=hip"]).method
    assert rate("method=hip") == 1e-3
    assert rate("method=lora") == 5e-4
    assert rate("method=hip", "training.lr=3e-3") == 3e-3
    own = chosen / "hip_no_stability.yaml"
    own.write_text(own.read_text() + "training:\n  lr: 5e-3\n")
    assert (rate("method=hip_no_stability"), rate("method=hip")) == (5e-3, 1e-3)


def test_the_default_is_the_main_job() -> None:
    config = compose([])
    assert (config.method.name, config.task.name, config.seed, config.scale) == ("hip", "gsm8k", 42, "mini")
    assert (config.model.source, config.data.name, config.pipeline.name) == ("packaged", "mini", "single")


# Experiments are grids of overrides, without fields of their own.
WITH_FIELDS = sorted(path for path in CONF_DIR.rglob("*.yaml") if path.parent.name != "experiment")


@pytest.mark.parametrize("path", WITH_FIELDS, ids=lambda path: str(path.relative_to(CONF_DIR)))
def test_every_field_is_marked(path) -> None:
    inside = "fields"
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if re.match(r"(defaults|hydra):", line):
            inside = "hydra"
        elif re.match(r"\w", line):
            inside = "fields"
        if inside == "fields" and re.match(r"\s*\w+:\s*\S", line) and not re.match(r"\s*\w+:\s*#", line):
            assert MARK.search(line), f"{path.name}:{number} has no mark: {line}"


def test_conf_and_registries_agree() -> None:
    names = {compose([f"method={path.stem}"]).method.name for path in (CONF_DIR / "method").glob("*.yaml")}
    assert names == set(METHODS)
    assert {path.stem for path in (CONF_DIR / "task").glob("*.yaml")} == set(TASKS)
    assert {path.stem for path in (CONF_DIR / "pipeline").glob("*.yaml")} == set(PIPELINES)
    assert set(compose(["data=hub"]).data.revisions) == {name for name, origin in ORIGINS.items() if origin.repository}
    for name in METHODS:
        assert all(field.is_required() for field in method_class(name).model_fields.values())


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["method=hipp"], ["hipp", "lora"]),
        (["training.step=3"], ["step"]),
        (["+training.step=3"], ["training", "step"]),
        (["training.steps=abc"], ["training", "abc"]),
        (["training.steps=0"], ["training.steps=0", "at least 1"]),
        (["method.r=0"], ["r=0"]),
        (["method.k=0"], ["k=0"]),
        (["method.stability=-1"], ["stability"]),
        (["method.parameterization=log"], ["parameterization", "relative"]),
        (["svd.recipe=fast"], ["svd.recipe", "exact"]),
        (["evaluation.scoring=word"], ["scoring", "cloze"]),
        (["model=folder"], ["model.path"]),
        (["data=local"], ["data.root"]),
        (["data.revisions.gsm8k=abc"], ["gsm8k"]),
        (["+data.revisions.gsm8k=abc"], ["data.revisions.gsm8k", "data=hub"]),
        (["data=hub", "data.revisions=abc"], ["data.revisions"]),
        (["seed=custom", "seed.value=x"], ["seed.value"]),
        (["seed=7"], ["seed=custom seed.value=7"]),
        (["force=maybe"], ["force"]),
        (["+surprise=1"], ["surprise"]),
        (["method.k=${x}"], ["method.k", "Interpolation key 'x' not found"]),
        (["model.target_modules=q_proj"], ["model.target_modules=q_proj must be a list"]),
        *(([f"{group}=null"], [f"{group}=null chooses no option"]) for group in (*GROUPS, "seed", "merge", "hydra")),
        (["seed=[42]"], ["seed=[42] chooses no option", "42"]),
        (["hydra/launcher=null"], ["hydra/launcher=null"]),
        (["method="], ["method= chooses no option", "lora"]),
        *(
            ([f"{key}=null"], [key])
            for key in ("svd", "training", "evaluation", "logging", "force", "method.k", "seed.value")
        ),
        (["method=hip", "svd.k_max=8", "method.k=16"], ["method.k=16 exceeds svd.k_max=8", "raise svd.k_max"]),
        (["method=proj", "svd.k_max=8", "method.k=16"], ["method.k=16 exceeds svd.k_max=8"]),
        (["outputs_dir="], ["outputs_dir= is empty", "outputs_dir=DIR"]),
        (["results_dir=[a,b]"], ["results_dir=", "must be text"]),
        (["results_dir=7"], ["results_dir=7", "must be text"]),
        (["outputs_dir=~nosuchuser/x"], ["outputs_dir=~nosuchuser/x", "no such home folder"]),
        (["seed=range(1,3)"], ["seed=range(1,3) gives numbers", "seed=A,B"]),
        (["data.root=somewhere"], ["data.root=somewhere", "data=local or data=hub"]),
        (["data=hub", "data.root="], ["data.root= is empty"]),
        (["model.target_modules=[q_proj,v_proj,q_proj]"], ["names q_proj more than once"]),
        (["model.target_modules=[q_proj,auto]"], ["model.target_modules=auto stands for a whole list"]),
        (["training.lr=1e30"], ["training.lr=1e+30", "at most 10", "e.g. 0.001"]),
        (["training.max_grad_norm=1e-30"], ["training.max_grad_norm=1e-30", "must be 0, which does not clip"]),
        (["evaluation.code_temperature=1e-9"], ["evaluation.code_temperature=1e-09", "at least 0.01"]),
        (["evaluation.code_timeout_seconds=1e9"], ["evaluation.code_timeout_seconds", "at most 3600"]),
        (["method.gamma=99"], ["method.gamma=99", "from 0 to 10"]),
    ],
)
def test_mistakes_are_refused_in_one_sentence(overrides: list[str], words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        compose(overrides)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize("command", ["hiplora.run seed=42", "hiplora.reproduce table1 --plan"])
def test_a_copy_without_its_checkout_says_how_to_install_it(command: str, tmp_path: Path) -> None:
    shutil.copytree(CONF_DIR.parent / "hiplora", tmp_path / "hiplora", ignore=shutil.ignore_patterns("__pycache__"))
    words = [sys.executable, "-m", *command.split()]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "-e '.[suite]'" in done.stderr
    assert done.stderr.count("\n") == 1


def numeric_options() -> list[tuple[Options, str, type]]:
    """Every option that is a number, of every class of options, with the object it belongs to."""
    config = compose([])
    methods = [compose([f"method={name}"]).method for name in METHODS]
    operators = [compose([f"merge={name}"]).merge for name in OPERATORS]
    merging = compose(["pipeline=merge"]).pipeline
    owners = [config.training, config.evaluation, config.svd, config.model, merging, *config.benchmarks]
    return [
        (owner, name, kind)
        for owner in [*owners, *methods, *operators]
        for name, field in type(owner).model_fields.items()
        for kind in (int, float)
        if kind in (field.annotation, *get_args(field.annotation)) and "tuple" not in str(field.annotation)
    ]


@pytest.mark.parametrize(
    ("owner", "name", "kind"), numeric_options(), ids=lambda value: value if isinstance(value, str) else None
)
def test_every_number_has_a_range_that_somebody_could_mean(owner: Options, name: str, kind: type) -> None:
    for absurd in (-(10**30), 10**30):
        with pytest.raises(UserError) as caught:
            owner.but(**{name: kind(absurd)})
        assert f"{name}={kind(absurd)}" in str(caught.value)


@pytest.mark.parametrize("field", [*FOLDERS, "edits.file"])
@pytest.mark.parametrize(("quote", "home"), [("", "plain"), ("'", "josé, (a=b)"), ("", "josé's, (a=b)\\")])
def test_a_home_folder_behind_an_equals_sign_is_found(field, quote, home, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / home))
    config = compose([f"{field}={quote}~/mine{quote}"])
    found = (config.outputs_dir, config.results_dir, config.edits.file)
    assert str(tmp_path / home / "mine") in found


@pytest.mark.parametrize("text", ["it's", "a\\", "\\'", "a,b", "x=(é)", "{a}", "a b", "/plain/path-1.0"])
def test_a_text_is_read_by_hydra_as_it_is(text: str) -> None:
    assert compose([f"results_dir={hydra_text(text)}"]).results_dir == text


@pytest.mark.parametrize("word", ["seed=choice(42,100)", "seed=choice('42', '100')", "seed=sort(choice(100,42))"])
def test_a_sweep_over_options_that_are_numbers_is_one_over_options(word: str) -> None:
    (quoted,) = quoted_options([word])
    assert {*OverridesParser.create().parse_override(quoted).sweep_string_iterator()} == {"'42'", "'100'"}


def test_digest_ignores_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [2, None]}) == digest({"b": [2, None], "a": 1}) != digest({"a": 1, "b": [2, 0]})
