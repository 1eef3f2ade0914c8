"""Tiny random backbones of many families, saved as folders beside the tiny tokenizer: no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.tiny import tiny_tokenizer

WINDOW = 24  # tokens that a layer with a window looks back on: fewer than a prompt has

_COMMON: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
_EXPERTS: dict[str, Any] = {"num_local_experts": 4, "num_experts_per_tok": 2}
# Class of the configuration, its options, and what `auto` finds.
FAMILIES: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "llama": ("LlamaConfig", _COMMON, ("k_proj", "o_proj", "q_proj", "v_proj")),
    "qwen3": ("Qwen3Config", _COMMON, ("k_proj", "o_proj", "q_proj", "v_proj")),
    "gemma3": (
        "Gemma3TextConfig",
        _COMMON | {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]},
        ("k_proj", "o_proj", "q_proj", "v_proj"),
    ),
    "gpt2": ("GPT2Config", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}, ("attn.c_proj", "c_attn")),
    "gpt_neox": (
        "GPTNeoXConfig",
        {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4},
        ("dense", "query_key_value"),
    ),
    "mistral": ("MistralConfig", _COMMON | {"sliding_window": WINDOW}, ("k_proj", "o_proj", "q_proj", "v_proj")),
    "phi3": ("Phi3Config", _COMMON, ("o_proj", "qkv_proj")),
    "mixtral": ("MixtralConfig", _COMMON | _EXPERTS, ("k_proj", "o_proj", "q_proj", "v_proj")),
}
# Families that share neither prefixes nor rows: a bias by distance in the row instead of positions, a recurrent state.
PLAIN: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "bloom": ("BloomConfig", {"hidden_size": 32, "n_layer": 2, "n_head": 4}, ("dense", "query_key_value")),
    "mamba": ("MambaConfig", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}, ()),
}
CHAT = (
    "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)
POSITIONS = {"max_position_embeddings": 512}


def backbone(folder: Path, family: str, *, tokenizer: Any = None, **changes: Any) -> Path:
    """Save a tiny random model of a family with a tokenizer, and return the folder."""
    import torch
    import transformers

    tokenizer = tiny_tokenizer() if tokenizer is None else tokenizer
    tokenizer.save_pretrained(folder)
    name, options, _ = (FAMILIES | PLAIN)[family]
    own = {} if "n_positions" in options or family in PLAIN else POSITIONS
    tokens = {"vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None}
    config = getattr(transformers, name)(**{**tokens, **own, "initializer_range": 0.2, **options, **changes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder
