"""lm-eval's tasks on our model in memory: the numbers of lm-eval's own command on the same exported model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer

from hiplora.errors import UserError
from hiplora.evaluation import item_texts
from hiplora.evaluation.harness import score
from hiplora.evaluation.harness_items import item_text
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
        ([("Q", " a"), ("Q", " b")], [0, 1], ItemText(prompt="Q", right=" a |  b", options=(" a", " b"))),
        ([("Q", " a"), ("Q", " b")], "b", ItemText(prompt="Q", right="b", options=(" a", " b"))),
    ],
    ids=["several right", "named"],
)
def test_a_right_answer_is_a_text_a_number_or_several(pairs, target, wanted) -> None:
    task = SimpleNamespace(OUTPUT_TYPE="multiple_choice")
    assert item_text(task, {"arguments": pairs, "target": target, "metrics": ["acc"]}) == wanted


def of_a_yaml(folder: Path, name: str, rows: list[dict], body: str) -> dict[str, Any]:
    """What asks for a task of its own."""
    folder.mkdir(exist_ok=True)
    (folder / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    head = f"task: {name}\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {folder}/own.jsonl}}}}\n"
    (folder / f"{name}.yaml").write_text(f"{head}test_split: test\n{body}")
    return {"tasks": (name,), "include_path": str(folder)}


def test_options_inside_the_context_and_options_alone(exported, evaluation, tmp_path) -> None:
    """Winogrande's form, with a metric that scores the options without their context, too."""
    rows = [{"names": ["Ann", "Bob"], "right": 1, "end": "left."}, {"names": ["Cy", "Di"], "right": 0, "end": "slept."}]
    body = """output_type: multiple_choice
doc_to_text: "{{right}}"
doc_to_choice: "{{names}}"
doc_to_target: "{{end}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_mutual_info, aggregation: mean, higher_is_better: true}
"""
    _, samples, texts = ours(exported, evaluation, **of_a_yaml(tmp_path, "inside", rows, body))
    first, second = (texts[item_texts.key(each["benchmark"], each)] for each in samples)
    assert first == ItemText(prompt="[…] left.", right="Bob", options=("Ann", "Bob"))
    assert second == ItemText(prompt="[…] slept.", right="Cy", options=("Cy", "Di"))
    assert [len(each["log_probs"]) for each in samples] == [2, 2]
    for each in samples:
        assert each["acc"] == (each["log_probs"].index(max(each["log_probs"])) == rows[int(each["id"])]["right"])


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("output_type: generate_until\nprocess_results: !function own.broken\n", "KeyError: 'gone'"),
        ("output_type: loglikelihood\nnum_fewshot: 9\n", "ValueError: Sample"),
    ],
    ids=["a function", "too few rows for examples"],
)
def test_a_task_that_fails_in_lm_eval_is_named(exported, evaluation, tmp_path, body, reason) -> None:
    (tmp_path / "own.py").write_text("def broken(doc, results):\n    return {'acc': doc['gone']}\n")
    metrics = "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    asked = of_a_yaml(
        tmp_path, "mine", [{"q": "one", "a": "two"}], f"doc_to_text: q\ndoc_to_target: a\n{metrics}{body}"
    )
    with pytest.raises(UserError, match=rf"lm-eval failed on mine \({re.escape(reason)}.*; correct its definition"):
        ours(exported, evaluation, **asked)


def test_an_error_of_the_model_is_not_the_tasks(exported, tasks, evaluation, monkeypatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("hiplora.evaluation.lm.InMemoryLM.generate_until", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        ours(exported, evaluation.but(limit=1), tasks=["toy_written"], include_path=str(tasks))


def test_what_a_filter_reads_is_kept_beside_the_text(exported, tasks, evaluation) -> None:
    _, samples, _ = ours(exported, evaluation, tasks=["toy_written"], include_path=str(tasks))
    for each in samples:
        found = re.search(r"(\w+)", each["text"])
        wanted = found[1] if found else "[invalid]"
        assert each.get("read", each["text"]) == (wanted if each["id"].endswith(",word") else each["text"])


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
