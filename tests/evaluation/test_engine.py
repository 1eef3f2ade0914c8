"""The whole evaluation on toy benchmarks and a tiny model."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from hiplora.config import Bookkeeping
from hiplora.evaluation import passk
from hiplora.evaluation.engine import evaluate
from hiplora.evaluation.options import Evaluation
from hiplora.evaluation.sandbox import Verdict
from hiplora.tasks import ORDER
from hiplora.tasks.form import Example, render, shown_prompt
from hiplora.tasks.source import Source
from hiplora.tokens import speak_in_turns
from tests.backbones import CHAT
from tests.tiny import benchmark


def scores(model, tokenizer, data, evaluation, tasks=ORDER, **options):
    """Of the benchmarks by their names, each with those of the options that it has."""
    asked = [benchmark(name) for name in tasks]
    asked = [task.but(**{key: value for key, value in options.items() if hasattr(task, key)}) for task in asked]
    return evaluate(model, tokenizer, tasks=asked, source=Source(data), evaluation=evaluation, progress=False)


@pytest.fixture
def executed(monkeypatch):
    """Stands in for the sandbox: a completion passes if it has a space. Collects what was executed."""
    programs = []

    def run_many(checks, backend, *, on_done):
        programs.extend(checks)
        return [
            Verdict(" " in check.completion, "passed" if " " in check.completion else "failed", "") for check in checks
        ]

    monkeypatch.setattr("hiplora.evaluation.sandbox.run_many", run_many)
    monkeypatch.setattr("hiplora.evaluation.sandbox.choose_backend", lambda name: name)
    return programs


def manual_nll(model, tokenizer, prompt, answer):
    ids, continuation = tokenizer.encode(prompt), tokenizer.encode(answer)
    with torch.inference_mode():
        logits = model(torch.tensor([[*ids, *continuation]])).logits[0].log_softmax(-1)
    return -logits[len(ids) - 1 : -1].gather(-1, torch.tensor(continuation)[:, None]).mean().item()


def test_prompts_as_turns_of_a_chat(model, tokenizer, data, evaluation, executed):
    """Asked and trained as turns; a program is run behind the prompt as it was."""
    spoken = copy.deepcopy(tokenizer)
    spoken.chat_template = CHAT
    speak_in_turns(model, spoken)
    found = scores(model, spoken, data, evaluation, execution="auto")
    for name in ("gsm8k", "mmlu"):
        task = benchmark(name)
        item = task.test_items(Source(data))[0]
        prompt = shown_prompt(spoken, task.prompt(item))
        assert prompt.startswith("<s>user\n")
        expected = manual_nll(model, spoken, prompt, task.answer(item).removeprefix(" "))
        assert found[name].samples[0]["nll"] == pytest.approx(expected, rel=1e-4)
    assert executed
    assert not any("<s>" in check.prompt for check in executed)
    task = benchmark("code")
    for pair, each in zip(task.training_pairs(Source(data)), task.encoded_examples(Source(data), spoken), strict=True):
        turns = [{"role": "user", "content": pair.prompt}, {"role": "assistant", "content": pair.answer}]
        whole = spoken.apply_chat_template(turns, tokenize=False)
        assert spoken.decode([*each.prompt, *each.answer]) == whole.removesuffix("\n")


@pytest.mark.parametrize("scoring", ["cloze", "letter"])
def test_every_benchmark_reports_its_metrics(model, tokenizer, data, evaluation, scoring):
    found = scores(model, tokenizer, data, evaluation, scoring=scoring)
    assert {name: list(score.metrics) for name, score in found.items()} == {
        "mmlu": ["acc", "acc_macro", "nll"],
        "scienceqa": ["acc", "nll"],
        "gsm8k": ["acc", "nll"],
        "code": ["pass@1", "pass@5", "pass@10", "empty", "nll"],
    }
    assert [score.n for score in found.values()] == [3, 2, 3, 1]
    assert found["code"].metrics["pass@1"] is None, "code that was not executed has no pass@k"
    assert all(score.metrics["nll"] > 0 for score in found.values())


def test_gold_nll_is_the_plain_mean_over_tokens(model, tokenizer, data, evaluation):
    found = scores(model, tokenizer, data, evaluation)
    item = Source(data).load("gsm8k", "test")[1]
    prompt = benchmark("gsm8k").prompt(item)
    assert found["gsm8k"].samples[1]["nll"] == pytest.approx(manual_nll(model, tokenizer, prompt, "2"), abs=1e-4)
    means = [
        -manual_nll(model, tokenizer, "The capital of Peru is", f" {name}")
        for name in ("Lima", "Quito", "La Paz", "Cusco")
    ]
    assert found["mmlu"].samples[0]["log_probs"] == pytest.approx(means, abs=1e-3)
    assert found["mmlu"].samples[0]["chosen"] == int(np.argmax(means))
    assert found["code"].metrics["nll"] == pytest.approx(
        manual_nll(model, tokenizer, 'def add(a, b):\n    """Sum."""\n', "    return a + b\n"), abs=1e-4
    )


def test_bookkeeping_changes_no_number(model, tokenizer, data, evaluation):
    """Every field that is marked so: two values give the same scores but for rounding."""
    marked = [name for name, field in Evaluation.model_fields.items() if Bookkeeping in field.metadata]
    assert marked == ["batch_tokens"]
    one = scores(model, tokenizer, data, evaluation)
    other = scores(model, tokenizer, data, evaluation.but(batch_tokens=64))
    for name, score in one.items():
        assert other[name].metrics == pytest.approx(score.metrics, abs=1e-5)
    assert evaluation.identity() == evaluation.but(batch_tokens=64).identity()


def test_macro_accuracy_weighs_subjects_alike(model, tokenizer, data, evaluation):
    found = scores(model, tokenizer, data, evaluation, tasks=["mmlu"])["mmlu"]
    by_item = [sample["acc"] for sample in found.samples]
    assert found.metrics["acc"] == pytest.approx(sum(by_item) / 3)
    assert found.metrics["acc_macro"] == pytest.approx(((by_item[0] + by_item[1]) / 2 + by_item[2]) / 2)


def test_every_completion_has_its_verdict(model, tokenizer, data, evaluation, executed):
    found = scores(model, tokenizer, data, evaluation, tasks=["code"], execution="auto", temperature=0.3)
    (sample,) = found["code"].samples
    assert len(sample["completions"]) == len(sample["verdicts"]) == 10
    assert [check.completion for check in executed] == sample["completions"]
    correct = sample["verdicts"].count("passed")
    assert found["code"].metrics["pass@1"] == pytest.approx(correct / 10)
    assert found["code"].metrics["pass@5"] == pytest.approx(passk.pass_at_k(10, correct, 5))


def test_evaluation_changes_nothing_around_it(model, tokenizer, data, evaluation, executed):
    model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"], lora_dropout=0.5))
    model.train()
    model.base_model.model.lm_head.eval()
    flags = [module.training for module in model.modules()]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    first = scores(model, tokenizer, data, evaluation, execution="auto")
    assert [module.training for module in model.modules()] == flags
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]
    assert scores(model, tokenizer, data, evaluation, execution="auto") == first
    other = scores(model, tokenizer, data, evaluation.but(seed=1), tasks=["code"], execution="auto")
    assert other["code"].samples[0]["completions"] != first["code"].samples[0]["completions"]
    loss = model(torch.tensor([[2, 3, 4]]), labels=torch.tensor([[2, 3, 4]])).loss
    loss.backward()  # nothing is left in inference mode


def test_an_adapter_counts(model, tokenizer, data, evaluation):
    plain = scores(model, tokenizer, data, evaluation, tasks=["mmlu"])["mmlu"]
    torch.manual_seed(0)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False))
    assert scores(adapted, tokenizer, data, evaluation, tasks=["mmlu"])["mmlu"].metrics["nll"] != plain.metrics["nll"]


def test_samples_hold_no_text_of_the_benchmark(model, tokenizer, data, evaluation, executed):
    found = scores(model, tokenizer, data, evaluation, execution="auto")
    saved = json.dumps([sample for score in found.values() for sample in score.samples])
    assert not any(text in saved for text in ("Quito", "La Paz", "What is 1", "candidate", 'HumanEval/0"\n'))


def test_limit_takes_the_first_items(model, tokenizer, data, evaluation):
    limited = scores(model, tokenizer, data, evaluation.but(limit=2), tasks=["gsm8k"])["gsm8k"]
    assert [sample["id"] for sample in limited.samples] == ["test/0", "test/1"]


def test_validation_of_code_has_only_the_nll_of_held_out_training_pairs(model, tokenizer, data, evaluation, executed):
    pairs = [{"instruction": f"Add {n}.", "input": "", "output": f"x + {n}"} for n in range(2)]
    Path(data.root, "codealpaca", "validation.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    asked = evaluation.but(splits="validation")
    found = scores(model, tokenizer, data, asked, tasks=["code"], execution="auto")["code"]
    prompts = [render(Example(id="", instruction=f"Add {n}.", output=""), "alpaca").prompt for n in range(2)]
    nlls = [manual_nll(model, tokenizer, prompt, f"x + {n}") for n, prompt in enumerate(prompts)]
    assert [sample["id"] for sample in found.samples] == ["validation/0", "validation/1"]
    assert [sample["nll"] for sample in found.samples] == pytest.approx(nlls, abs=1e-4)
    assert found.metrics == {
        "pass@1": None,
        "pass@5": None,
        "pass@10": None,
        "empty": None,
        "nll": pytest.approx(sum(nlls) / 2, abs=1e-4),
    }
    assert not executed
    assert not any("completions" in sample for sample in found.samples)


FUNCTIONS = [
    {
        "instruction": f'def add_{n}(x):\n    """Add {n}."""',
        "input": "",
        "output": f"\n    return x + {n}",
        "entry_point": f"add_{n}",
        "test": f"def check(candidate):\n    assert candidate(1) == {n + 1}\n",
    }
    for n in range(2)
]


def test_held_out_functions_are_executed_in_the_form_in_which_they_are_asked(
    model, tokenizer, data, evaluation, executed
):
    Path(data.root, "codealpaca", "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in FUNCTIONS))
    asked = evaluation.but(splits="validation")
    found = scores(model, tokenizer, data, asked, tasks=["code"], execution="auto")["code"]
    assert [sample["id"] for sample in found.samples] == ["validation/0", "validation/1"]
    assert {(check.prompt, check.test) for check in executed} == {
        (row["instruction"], row["test"]) for row in FUNCTIONS
    }
    nlls = [manual_nll(model, tokenizer, row["instruction"], row["output"]) for row in FUNCTIONS]
    assert found.metrics["nll"] == pytest.approx(sum(nlls) / 2, abs=1e-4)
    assert 0 <= found.metrics["pass@1"] <= 1


def test_an_empty_completion_fails_and_is_counted(model, tokenizer, data, evaluation, executed, monkeypatch):
    """The end token first, or the end of a code block: neither leaves a program."""
    answers, stops = ["", "\n", *["\n    return 1"] * 8], []

    def generate(*_, decoding, finished, **__):
        stops.extend(decoding.stops)
        finished(0, answers)

    monkeypatch.setattr("hiplora.evaluation.answers.generate", generate)
    found = scores(model, tokenizer, data, evaluation, tasks=["code"], execution="auto")["code"]
    assert "\n```" in stops
    assert found.metrics["empty"] == pytest.approx(0.2)
    assert found.samples[0]["verdicts"] == ["failed"] * 2 + ["passed"] * 8
    assert found.metrics["pass@1"] == pytest.approx(0.8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_padding_never_makes_a_score_that_is_no_number(model, tokenizer, data, evaluation, dtype):
    found = scores(model.to(dtype), tokenizer, data, evaluation)
    assert all(np.isfinite(score.metrics["nll"]) for score in found.values())
