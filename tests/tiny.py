"""A two-layer random Llama with its own small tokenizer, saved as a folder: no network, half a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hiplora.tasks import task_class
from hiplora.tasks.base import Task

# Overrides of a run that takes seconds; it also needs model.path, outputs_dir and results_dir.
SMALL = [
    "model=folder", "model.name=tiny", "model.dtype=float32", "method.r=4",
    "training.steps=6", "training.rows_per_step=2", "training.micro_batch_rows=1", "training.row_tokens=192",
    "training.checkpoint_every=2", "training.log_every=1",
    "evaluation.limit=4", "evaluation.code_samples=2", "evaluation.code_max_new_tokens=8", "evaluation.text_tokens=256",
]  # fmt: skip

# What an option of a group cannot be composed without.
NEEDS = {
    "model=folder": ["model.path=x"],
    "model=hub": ["model.path=owner/name"],
    "data=local": ["data.root=x"],
    "seed=custom": ["seed.value=7"],
    "pipeline=evaluate": ["adapter=x"],
    "task=custom": ["task.file=x.jsonl"],
}

# How each benchmark is asked in tests that build it themselves: short answers, and no code that is executed.
ASKED: dict[str, dict[str, Any]] = {
    "gsm8k": {"max_new_tokens": 6},
    "code": {
        "samples": 10,
        "temperature": 0.8,
        "top_p": 0.95,
        "max_new_tokens": 8,
        "timeout_seconds": 3.0,
        "execution": "off",
    },
}


def benchmark(name: str, **changes: Any) -> Task:
    """A benchmark by its name, with some of its options changed."""
    return task_class(name)(**{**ASKED.get(name, {}), **changes})


VOCABULARY = 400
SENTENCES = (
    "Below is an instruction that describes a task, paired with an input that provides further context.",
    "Write a response that appropriately completes the request.",
    "### Instruction:\nAnswer the question with one letter.\n\n### Input:\nA. red\nB. green\nC. blue\nD. grey",
    "### Response:\nThe answer is B.\n#### 42",
    "Question: Anna has 12 apples and buys 30 more. How many apples does she have now? 12 + 30 = 42.",
    "def add(a, b):\n    return a + b\n\nfor number in range(10):\n    print(number)",
    "The capital of Peru is Lima. The capital of France is Paris. The brown fox jumps over the lazy dog.",
)


def tiny_llama_folder(folder: Path, *, seed: int = 0) -> Path:
    """Save the model and its tokenizer under ``folder`` (made if absent) and return it.

    Use it as ``model.source=folder model.path=<folder>``. The same seed gives the same weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(folder)
    _model(len(tokenizer), seed=seed).save_pretrained(folder)
    return folder


def tiny_tokenizer(template: str | None = None):
    """The model's tokenizer; ``template`` says which special tokens stand around a text, such as ``<s> $A``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(SENTENCES, trainer)
    if template is not None:
        tokens = [(token, number) for number, token in enumerate(["<s>", "</s>"]) if token in template]
        raw.post_processor = processors.TemplateProcessing(single=template, special_tokens=tokens)
    # No pad token on purpose: Llama has none either, so that every test runs the path that sets one.
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>")


def _model(vocabulary: int, *, seed: int):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)
