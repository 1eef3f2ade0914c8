"""A tiny random Llama, two tokenizers trained on the spot, and a folder of toy benchmarks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from hiplora.evaluation.options import Evaluation
from hiplora.tasks.source import Data

TEXT = (
    "### Instruction:\nName the colour of the sky.\n\n### Response:\nblue\n"
    "def add(a, b):\n    return a + b\n\nprint(add(1, 2))\nThe capital of Peru is Lima. 1 2 3 4 5 6 7 8 9 0\n"
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n"
) * 4
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def trained(pre_tokenizer: pre_tokenizers.PreTokenizer, *, begin: bool) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    if begin:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        clean_up_tokenization_spaces=False,
    )


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """GPT-2's way of splitting, no token in front."""
    return trained(pre_tokenizers.ByteLevel(add_prefix_space=False), begin=False)


@pytest.fixture(scope="session")
def llama3_tokenizer() -> PreTrainedTokenizerFast:
    """Llama 3's way: punctuation takes the newlines behind it, and a token stands in front."""
    split = pre_tokenizers.Split(Regex(LLAMA3_SPLIT), behavior="isolated")
    return trained(pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)]), begin=True)


@pytest.fixture
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=400,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.3,  # sharp distributions, or argmax hangs on rounding
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def data(tmp_path: Path) -> Data:
    """Toy benchmarks in the Hub's schema, read with ``data=local``."""
    choices = {"question": "The capital of Peru is", "choices": ["Lima", "Quito", "La Paz", "Cusco"], "answer": 0}
    pair = {"instruction": "Add.", "input": "1 2", "output": "3"}
    problem = {
        "task_id": "HumanEval/0",
        "prompt": 'def add(a, b):\n    """Sum."""\n',
        "canonical_solution": "    return a + b\n",
        "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n",
        "entry_point": "add",
    }
    rows: dict[str, list[dict]] = {
        "mmlu/test": [{**choices, "subject": subject} for subject in ("geography", "geography", "history")],
        "scienceqa/test": [{**choices, "choices": ["iron", "wool"], "hint": "", "image": None}] * 2,
        "gsm8k/test": [{"question": f"What is 1 + {n}?", "answer": f"It is {n + 1}.\n#### {n + 1}"} for n in range(3)],
        "humaneval/test": [problem],
        "codealpaca/train": [pair],
        "text/test": [{"text": TEXT}],
    }
    for name, items in rows.items():
        path = tmp_path / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return Data(name="local", root=str(tmp_path), revisions={})


@pytest.fixture
def evaluation() -> Evaluation:
    return Evaluation(splits="test", batch_tokens=256, text_tokens=300, limit=None, seed=0)
