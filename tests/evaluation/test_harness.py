"""lm-eval's tasks on our model in memory: the numbers of lm-eval's own command on the same exported model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer

from hiplora.errors import UserError
from hiplora.evaluation import item_texts
from hiplora.evaluation.harness import item_text, score
from hiplora.evaluation.harness_lm import settings_of
from hiplora.evaluation.item_texts import ItemText
from hiplora.evaluation.lm_tasks import LmTasks
from tests.lm_tasks import TASKS, toy_tasks
from tests.tiny import tiny_llama_folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose distributions are sharp, so that no choice and no token hangs on rounding."""
    folder = tiny_llama_folder(tmp_path_factory.mktemp("exported"))
    model = AutoModelForCausalLM.from_pretrained(folder)
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data = 0.3 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_tasks(tmp_path_factory.mktemp("tasks"))


def test_every_item_has_its_text(exported, tasks, evaluation, tmp_path) -> None:
    """Outside the samples, which records keep, and only where the content is that of the name."""
    _, samples, texts = ours(exported, evaluation.but(limit=2), tasks=TASKS, include_path=str(tasks))
    assert {item_texts.key(each["benchmark"], each) for each in samples} == texts.keys()
    second = {each["benchmark"]: texts[item_texts.key(each["benchmark"], each)] for each in samples}
    assert second["lm_eval/toy_choice"].prompt.endswith("Question: Which colour has thing 1?\nAnswer:")
    assert second["lm_eval/toy_choice"].options == (" red", " green", " blue")
    assert second["lm_eval/toy_choice"].right == " green"
    assert second["lm_eval/toy_written"] == ItemText(prompt="Write: Which colour has thing 1? ", right="green")
    assert second["lm_eval/toy_last"] == ItemText(prompt="Which colour has thing 1? It is ", right="green")
    assert second["lm_eval/toy_text"].prompt.startswith("The brown fox 1")
    name = item_texts.keep(tmp_path, texts)
    assert item_texts.keep(tmp_path, texts) == name
    assert item_texts.load(tmp_path, name) == texts
    (path,) = tmp_path.iterdir()
    for damaged in (path.read_text().replace("fox", "cat"), path.read_text()[:-9], "[]"):
        path.write_text(damaged)
        assert item_texts.load(tmp_path, name) is None
    assert item_texts.keep(tmp_path, texts) == name
    assert item_texts.load(tmp_path, name) == texts


@pytest.mark.parametrize(
    ("pairs", "target", "wanted"),
    [
        ([("Ann", " left."), ("Bob", " left.")], 1, ItemText(prompt="[…] left.", right="Bob", options=("Ann", "Bob"))),
        ([("Q", " a"), ("Q", " b"), ("", " a"), ("", " b")], 0, ItemText(prompt="Q", right=" a", options=(" a", " b"))),
        ([("Q", " a"), ("Q", " b")], [0, 1], ItemText(prompt="Q", right=" a |  b", options=(" a", " b"))),
        ([("Q", " a"), ("Q", " b")], "b", ItemText(prompt="Q", right="b", options=(" a", " b"))),
    ],
    ids=["options inside the context", "mutual information", "several right", "named"],
)
def test_options_are_told_from_contexts(pairs, target, wanted) -> None:
    assert item_text("multiple_choice", {"arguments": pairs, "target": target}) == wanted


def ours(exported: Path, evaluation, **asked: Any):
    model = AutoModelForCausalLM.from_pretrained(exported)
    tokenizer = AutoTokenizer.from_pretrained(exported)
    return score(model, tokenizer, asked=LmTasks(**asked), evaluation=evaluation, progress=False)


def theirs(exported: Path, tasks: Path, names: list[str], limit: int | None = None) -> Any:
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    lm = HFLM(pretrained=str(exported), device="cpu", dtype="float32")
    return simple_evaluate(lm, tasks=names, task_manager=manager, limit=limit, bootstrap_iters=1000)


@pytest.mark.parametrize("limit", [None, 3])
def test_the_numbers_are_those_of_lm_eval(exported, tasks, evaluation, limit, monkeypatch) -> None:
    monkeypatch.setenv("DISABLE_MULTIPROC", "1")
    found, samples, _ = ours(exported, evaluation.but(limit=limit), tasks=TASKS, include_path=str(tasks))
    reference = theirs(exported, tasks, [*TASKS], limit)
    for name in TASKS:
        wanted = {key.removesuffix(",none"): value for key, value in reference["results"][name].items() if "," in key}
        scores = {key: value for key, value in wanted.items() if "_stderr" not in key}
        assert found[name].metrics == pytest.approx(scores, rel=1e-4)
        errors = {key.replace("_stderr", ""): value for key, value in wanted.items() if "_stderr" in key}
        known = {key: value for key, value in errors.items() if value != "N/A"}
        assert found[name].stderr == pytest.approx(known, rel=1e-3)
        assert found[name].n == reference["n-samples"][name]["effective"] == (limit or 7)
    assert [*found["toy_choice"].metrics] == ["acc", "acc_norm"]
    assert [*found["toy_written"].metrics] == ["length,whole", "length,word"]
    texts = [entry["resps"][0][0] for entry in reference["samples"]["toy_written"] if entry["filter"] == "whole"]
    kept = [each["text"] for each in samples if each["benchmark"] == "lm_eval/toy_written" and "whole" in each["id"]]
    assert kept == texts
    assert len(set(texts)) > 1 or limit
    hashes = [entry["prompt_hash"][:16] for entry in reference["samples"]["toy_choice"]]
    assert [each["prompt_hash"] for each in samples if each["benchmark"] == "lm_eval/toy_choice"] == hashes
    assert "Which colour" not in json.dumps(samples)


@pytest.mark.parametrize(
    ("field", "value", "remedy"),
    [
        ("repetition_penalty", 1.3, "1.0"),
        ("no_repeat_ngram_size", 2, "0"),
        ("suppress_tokens", [1, 2], "null"),
        ("max_new_tokens", 5, "null"),
    ],
)
def test_generation_settings_of_the_model_that_are_not_read_are_refused(
    exported, tasks, evaluation, field: str, value: Any, remedy: str
) -> None:
    model = AutoModelForCausalLM.from_pretrained(exported)
    tokenizer = AutoTokenizer.from_pretrained(exported)

    def scored(*names: str) -> Any:
        asked = LmTasks(tasks=names, include_path=str(tasks))
        return score(model, tokenizer, asked=asked, evaluation=evaluation.but(limit=1), progress=False)

    setattr(model.generation_config, field, value)
    scored("toy_choice", "toy_last")
    with pytest.raises(UserError, match=rf"toy_written generates .* has {field}=.* set {field} to {remedy} in that"):
        scored("toy_choice", "toy_written")
    setattr(model.generation_config, field, json.loads(remedy))
    scored("toy_written")


@pytest.mark.parametrize("given", [{}, {"temperature": 0.0}])
def test_sampling_without_a_temperature_is_refused(given: dict[str, float]) -> None:
    with pytest.raises(UserError, match="toy asks for do_sample in generation_kwargs without a temperature above 0"):
        settings_of({"do_sample": True, "until": [], **given}, name="toy")
    assert settings_of({"do_sample": True, "temperature": 0.5}, name="toy")["temperature"] == 0.5


def test_the_random_states_are_put_back(exported, tasks, evaluation) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    ours(exported, evaluation.but(limit=1), tasks=["toy_choice"], include_path=str(tasks))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_tokenizer_without_special_tokens_writes_and_chooses(exported, tasks, evaluation) -> None:
    model = AutoModelForCausalLM.from_pretrained(exported)
    tokenizer = AutoTokenizer.from_pretrained(exported)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)
    tokenizer.bos_token = tokenizer.eos_token = None
    asked = LmTasks(tasks=("toy_written", "toy_choice"), include_path=str(tasks))
    found, _, _ = score(model, tokenizer, asked=asked, evaluation=evaluation.but(limit=2), progress=False)
    assert found["toy_written"].n == found["toy_choice"].n == 2
