"""Model cards: what the Hub reads of them, and that the code in them loads what lies beside it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import EvalResult
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from hiplora import HipLoraConfig
from hiplora.adapters.card import Card, Scored, add_scores, write_card
from hiplora.adapters.exporting import export_lora
from hiplora.merging.__main__ import main
from tests.tuner.helpers import make_llama

IDS = torch.arange(2, 14)[None]
HUB = "owner/tiny-llama"


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    make_llama().save_pretrained(folder)
    return folder


def trained(base: Path, folder: Path, config: Any) -> Any:
    """A saved adapter and the logits with it on."""
    model: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return logits(model)


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model.eval()(IDS).logits


def codes(folder: Path, base: Path, **places: Path) -> list[Any]:
    """The model that each piece of code in a card loads."""
    found = []
    for code in re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL):
        for name, place in {"FOLDER": folder, "BACKBONE": base, HUB: base, **places}.items():
            code = code.replace(f'"{name}"', f'"{place}"')
        names: dict[str, Any] = {}
        exec(code, names)
        found.append(names["model"].float())
    return found


def test_the_code_in_a_card_loads_what_lies_beside_it(base, tmp_path) -> None:
    options: dict[str, Any] = {"target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
    ours = trained(base, tmp_path / "hip", HipLoraConfig(r=2, k=3, **options))
    trained(base, tmp_path / "lora", LoraConfig(r=2, **options))
    export_lora(tmp_path / "hip", tmp_path / "plain", backbone=base)
    write_card(tmp_path / "hip", Card(title="t", about="a", settings={}, base=HUB))
    with_us, without = codes(tmp_path / "hip", base, PLAIN=tmp_path / "plain")
    (exported,) = codes(tmp_path / "plain", base)
    for model in (with_us, without, exported):
        torch.testing.assert_close(logits(model), ours, rtol=1e-4, atol=1e-5)

    both = [str(tmp_path / name) for name in ("hip", "lora")]
    words = ["--operator", "addition", "--backbone", str(base)]
    assert main([*both, *words, "--out", str(tmp_path / "merged")]) == 0
    assert main([*both, *words, "--fold", "--out", str(tmp_path / "folded")]) == 0
    (merged,), (folded,) = (codes(tmp_path / name, base) for name in ("merged", "folded"))
    torch.testing.assert_close(logits(merged), logits(folded), rtol=1e-4, atol=1e-5)
    for name in ("plain", "merged", "folded"):
        card = ModelCard.load(tmp_path / name / "README.md")
        assert str(tmp_path) not in str(card)
        assert card.data.base_model is None, "the backbone lies in a folder"
        assert "\n# base_model: yours to add" in (tmp_path / name / "README.md").read_text()
        if name != "folded":
            assert f"`BACKBONE` stands for the folder of the backbone, here `{base.name}`" in card.text
        assert card.data.library_name == ("transformers" if name == "folded" else "peft")


def test_a_merge_and_an_export_name_the_backbone_that_their_sources_name(base, tmp_path) -> None:
    options: dict[str, Any] = {"target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    for number, name in enumerate(("one", "two")):
        trained(base, tmp_path / name, HipLoraConfig(r=2, k=3 + number, **options))
        write_card(tmp_path / name, Card(title="t", about="a", settings={}, base=HUB))
    export_lora(tmp_path / "one", tmp_path / "plain", backbone=base)
    words = ["--operator", "ties", "--density", "0.3", "--rank", "4", "--backbone", str(base)]
    assert main([*(str(tmp_path / name) for name in ("one", "two")), *words, "--out", str(tmp_path / "merged")]) == 0
    for name in ("plain", "merged"):
        assert ModelCard.load(tmp_path / name / "README.md").data.base_model == HUB
    text = (tmp_path / "merged/README.md").read_text()
    assert "| density | 0.3 |" in text
    assert f"| Backbone | `{base.name}` |" in text
    assert str(tmp_path) not in text


def test_scores_are_put_into_the_card_of_a_merge(base, tmp_path) -> None:
    for name in ("one", "two"):
        trained(base, tmp_path / name, LoraConfig(r=2, target_modules=["q_proj"]))
    inputs = [str(tmp_path / name) for name in ("one", "two")]
    assert main([*inputs, "--operator", "addition", "--out", str(tmp_path / "merged")]) == 0
    card = tmp_path / "merged/README.md"
    assert "It has not been scored." in card.read_text()
    for value in (0.25, 0.5):
        score = Scored(
            benchmark="mine", dataset=("a/b", "mine"), metric="acc", value=value, interval=(0.1, 0.6), n=30, before=0.2
        )
        assert add_scores(tmp_path / "merged", [score])
        text = card.read_text()
        (result,) = ModelCard.load(card).data.eval_results
        assert (result.dataset_type, result.metric_value) == ("a/b", value)
        assert text.count("## Scores") == 1
        assert f"| mine | acc | 0.200 | {value:.3f} | [0.100, 0.600] | 30 |\n\n## How to load it" in text
        assert "not been scored" not in text
        assert "\n# license: yours to choose" in text
    card.write_text(text.replace("addition", "my merge"))
    assert not add_scores(tmp_path / "merged", [score]), "somebody has changed it"
    assert not add_scores(tmp_path / "one", [score]), "PEFT's own card"


def test_scores_are_where_the_hub_looks_for_them(base, tmp_path) -> None:
    trained(base, tmp_path, LoraConfig(r=2, target_modules=["q_proj"], base_model_name_or_path=HUB))
    scores = [
        Scored(
            benchmark="gsm8k",
            dataset=("hiplora-mini", "gsm8k (mini)"),
            metric="acc",
            value=0.25,
            interval=(0.2, 0.3),
            n=300,
            before=0.02,
        ),
        Scored(
            benchmark="text",
            dataset=("owner/text", "text"),
            metric="nll",
            value=2.9,
            interval=None,
            n=8176,
            before=None,
        ),
    ]
    write_card(tmp_path, Card(title="one", about="a", settings={"Method": "lora"}, base=HUB, scores=scores))
    card = ModelCard.load(tmp_path / "README.md")
    assert (card.data.base_model, card.data.model_name) == (HUB, "one")
    results: list[EvalResult] = card.data.eval_results
    assert [(r.dataset_type, r.dataset_name, r.metric_type, r.metric_value) for r in results] == [
        ("hiplora-mini", "gsm8k (mini)", "acc", 0.25),
        ("owner/text", "text", "nll", 2.9),
    ]
    assert card.data.license is None
    assert "\n# license: yours to choose" in (tmp_path / "README.md").read_text()
    assert "| gsm8k | acc | 0.020 | 0.250 | [0.200, 0.300] | 300 |" in card.text
    assert "| text | nll |  | 2.900 |  | 8176 |" in card.text
