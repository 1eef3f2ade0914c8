"""Loads the frozen backbone and its tokenizer, and keeps the last one in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hiplora import tokens
from hiplora.errors import UserError
from hiplora.models.files import identity, location
from hiplora.models.options import Model, arithmetic, device_of, device_type

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_LOADED: dict[tuple[str, str, str, str, bool], Backbone] = {}  # one at most


@dataclass
class Backbone:
    """A loaded model in evaluation mode, its tokenizer (:mod:`hiplora.tokens`), its identity and its device.

    The weights are rounded to ``model.dtype`` and held in the dtype of :func:`arithmetic`.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    identity: str
    device: torch.device


def load(model: Model) -> Backbone:
    """The backbone in its dtype on its device; the last one stays in memory, so that a sweep loads it once.

    A caller that adapts ``Backbone.model`` in place must remove the adapter again.

    Raises:
        UserError: the package, file, folder, repository or GPU does not exist, or the model cannot be loaded.
    """
    what = identity(model)
    wanted = (what, model.dtype, arithmetic(model), device_type(model), model.chat_template)
    if wanted not in _LOADED:
        _LOADED.clear()  # before loading, so that two backbones never share the memory
        _LOADED[wanted] = _load(model, what)
    return _LOADED[wanted]


def forget() -> None:
    """Free the backbone that ``load`` keeps in memory."""
    _LOADED.clear()


def describe(backbone: Backbone) -> str:
    """Device and arithmetic in words for a record, such as ``cpu, 2 threads, bfloat16``."""
    import torch

    device, dtype = backbone.device, str(backbone.model.dtype).removeprefix("torch.")
    if device.type == "cuda":
        return f"cuda, {torch.cuda.get_device_name(device)}, {dtype}"
    return f"{device.type}, {torch.get_num_threads()} threads, {dtype}"


def _load(model: Model, what: str) -> Backbone:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where, options = location(model, what)
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, **options)
        loaded = AutoModelForCausalLM.from_pretrained(
            where, dtype=getattr(torch, model.dtype), attn_implementation=_attention(where, options), **options
        )
    except Exception as error:  # the libraries behind it raise their own exceptions for a damaged file
        raise UserError(_not_loadable(model, where, error)) from error
    _cast(loaded, getattr(torch, model.dtype), getattr(torch, arithmetic(model)))
    device = device_of(model)
    tokens.complete(loaded, tokenizer)
    if model.chat_template:
        tokens.speak_in_turns(loaded, tokenizer)
    torch.nn.Module.to(loaded, device)  # transformers' wrapper of ``to`` has no usable signature
    return Backbone(loaded.eval(), tokenizer, what, device)


def _cast(loaded: PreTrainedModel, rounded: torch.dtype, computed: torch.dtype) -> None:
    """Cast the weights that loading has rounded. What transformers keeps in fp32, such as RoPE frequencies, stays.

    A frequency in bfloat16 is off by up to 0.4 %, which at position 1000 is a phase error of a radian.
    """
    for tensor in (*loaded.parameters(), *loaded.buffers()):
        if tensor.dtype == rounded != computed:
            tensor.data = tensor.data.to(computed)


def _attention(where: str, options: dict[str, Any]) -> str:
    """``sdpa``, or ``eager`` for an architecture without it."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    architecture: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(AutoConfig.from_pretrained(where, **options))]
    return "sdpa" if architecture._supports_sdpa else "eager"


def _not_loadable(model: Model, where: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:300]
    if model.source == "hub":
        return (
            f"The backbone {model.path} cannot be loaded from the Hub ({reason}); if it is gated, accept its licence "
            "and type `hf auth login`; offline, download it first or use model=folder model.path=DIR."
        )
    remedy = "save it again with transformers" if model.source == "folder" else "delete that folder and try again"
    return f"{where} does not hold an intact causal language model with its tokenizer ({reason}); {remedy}."
