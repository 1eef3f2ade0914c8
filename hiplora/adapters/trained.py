"""The tensors that an adapter trained besides its low-rank updates: whole modules, embeddings, rows of tokens."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hiplora.adapters.fields import Checker
from hiplora.adapters.lora import beyond_lora
from hiplora.adapters.weights import Weights
from hiplora.errors import UserError

_COPY = re.compile(r"^(?P<module>.+?)(?:\.token_adapter)?\.base_layer\.(?P<end>weight|bias)$")
_TOKENS = ".token_adapter.trainable_tokens_delta"
_EMBEDDINGS = ("embed_tokens", "lm_head", "wte", "embed_in", "embed_out", "word_embeddings", "shared")
DROPPABLE = ("modules_to_save", "trainable_token_indices", "embeddings")


@dataclass(frozen=True)
class Trained:
    """Values that replace the backbone's.

    ``tensors``: by parameter. ``tokens``: rows by module and token. ``modules``: those of modules_to_save.
    ``tying``: a head tied to the embedding gets the same values (PEFT's ensure_weight_tying).
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    tokens: dict[str, dict[int, Tensor]] = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    tying: bool = False

    def shared(self, parameter: str) -> bool:
        """Whether parameters tied to this one get its values too; not in modules_to_save, which PEFT trains apart."""
        return self.tying or not _of(parameter, self.modules)

    def beside(self) -> dict[str, Tensor]:
        """All tensors by the names under which PEFT saves them, without its prefix."""
        rows = {f"{module}{_TOKENS}": torch.stack([*rows.values()]) for module, rows in self.tokens.items()}
        return {**self.tensors, **rows}

    def config(self) -> dict[str, Any]:
        """The configuration fields that make PEFT load these tensors."""
        tokens = {module: list(rows) for module, rows in self.tokens.items()}
        own = {"modules_to_save": list(self.modules) or None, "trainable_token_indices": tokens or None}
        return {**own, "ensure_weight_tying": self.tying} if self.tying else own


def split(
    source: str,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    *,
    weights: Weights | None,
    drop: Collection[str] = (),
) -> tuple[dict[str, Tensor], Trained, set[str]]:
    """The factors of an adapter, its other trained tensors, and the names in ``drop`` that applied.

    The backbone's own weights, which PEFT also saves if lm_head or embeddings are adapted, are left out.

    Raises:
        UserError: a tensor is of no known kind, a copy of the backbone's weight differs from it or cannot be compared,
            or the file lacks a trained tensor that the configuration names.
    """
    saved = _modules_to_save(source, config)
    dropped: set[str] = set()
    factors: dict[str, Tensor] = {}
    whole: dict[str, Tensor] = {}
    rows: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        left_out = _left_out(key, saved, drop)
        if left_out:
            dropped |= left_out
        elif match := _COPY.match(key):
            _check_copy(source, key, tensor, f"{match['module']}.{match['end']}", weights)
        elif key.endswith(_TOKENS):
            rows[key.removesuffix(_TOKENS)] = tensor
        elif ".lora_" in key:
            factors[key] = tensor
        elif _of(key, saved):
            whole[key] = tensor
        elif _embedding(key):
            whole |= {} if weights is not None and _is_copy(tensor, key, weights) else {key: tensor}
        else:
            raise beyond_lora(source, key, tensor)
    modules = tuple(module for module in saved if any(_of(key, (module,)) for key in whole))
    if saved and not modules and not dropped:
        raise UserError(
            f"{source} holds none of its modules_to_save ({', '.join(saved)}); the file is incomplete, save or fetch "
            "it again, or add --without modules_to_save."
        )
    tokens = _tokens(source, config, rows, dropped)
    return factors, Trained(whole, tokens, modules, bool(config.get("ensure_weight_tying"))), dropped


def _modules_to_save(source: str, config: Mapping[str, Any]) -> tuple[str, ...]:
    check = Checker(source, config)
    names = check.value("modules_to_save", None, lambda v: v is None or isinstance(v, list), "a list of module names")
    return tuple(names or ())


def _left_out(key: str, saved: Sequence[str], drop: Collection[str]) -> set[str]:
    """The words in ``drop`` (--without) that leave a tensor out."""
    words = {word for word in drop if word not in DROPPABLE and f".{word}." in f".{key}."}
    plain = ".lora_" not in key and ".token_adapter." not in key and ".base_layer." not in key
    kinds = {
        "modules_to_save": plain and _of(key, saved),
        "embeddings": plain and _embedding(key),
        "trainable_token_indices": ".token_adapter." in key,
    }
    return words | {kind for kind, given in kinds.items() if given and kind in drop}


def _of(key: str, modules: Sequence[str]) -> bool:
    """Whether a parameter lies in one of the modules, given by the ends of their names.

    As in PEFT, an end need not start at a dot: "norm" matches "layernorm" too.
    """
    return any(f"{module}." in key for module in modules)


def _embedding(key: str) -> bool:
    return any(f".{module}." in f".{key}" for module in _EMBEDDINGS)


def _check_copy(source: str, key: str, tensor: Tensor, parameter: str, weights: Weights | None) -> None:
    if weights is None:
        raise UserError(
            f"{source} holds {key}, the backbone's own weight or a trained one; add --backbone DIR to compare."
        )
    if not _is_copy(tensor, parameter, weights):
        raise UserError(f"{source} holds {key}, which is not the backbone's; save the adapter again without it.")


def _is_copy(tensor: Tensor, parameter: str, weights: Weights) -> bool:
    own = weights.parameter(parameter)
    return own is not None and own.shape == tensor.shape and torch.equal(tensor.to(own.dtype), own)


def _tokens(
    source: str, config: Mapping[str, Any], rows: Mapping[str, Tensor], dropped: Collection[str]
) -> dict[str, dict[int, Tensor]]:
    """The rows by module and token. Raises UserError if they do not match trainable_token_indices."""
    given = config.get("trainable_token_indices")
    if given and not rows and not dropped:
        raise UserError(
            f"{source} holds no rows for its trainable_token_indices; the file is incomplete, save or fetch it again."
        )
    tokens = {}
    for module, values in rows.items():
        table = given if isinstance(given, dict) else {module.rpartition(".")[2]: given}
        indices = next((table[name] for name in table if f".{module}".endswith(f".{name}")), None)
        if not isinstance(indices, list) or len(indices) != len(values):
            raise UserError(
                f"{source} holds {len(values)} rows of {module}, but its trainable_token_indices names "
                f"{len(indices) if isinstance(indices, list) else 'none'}; save it again."
            )
        tokens[module] = dict(zip(indices, values, strict=True))
    return tokens


def merge_trained(labels: Sequence[str], trained: Sequence[Trained]) -> tuple[Trained, dict[str, list[str]]]:
    """The mean of adapters' other trained tensors, each over the adapters that have it, and these adapters' labels.

    Raises:
        UserError: the shapes of a tensor differ.
    """
    pairs = list(zip(labels, trained, strict=True))
    tensors: dict[str, Tensor] = {}
    tokens: dict[str, dict[int, Tensor]] = {}
    sources: dict[str, list[str]] = {}
    for key in sorted({key for each in trained for key in each.tensors}):
        held = [(label, each.tensors[key]) for label, each in pairs if key in each.tensors]
        tensors[key], sources[key] = _mean(key, held), [label for label, _ in held]
    for module in sorted({module for each in trained for module in each.tokens}):
        having = [(label, each.tokens[module]) for label, each in pairs if module in each.tokens]
        tokens[module] = {
            token: _mean(f"{module}, token {token},", [(label, rows[token]) for label, rows in having if token in rows])
            for token in sorted({token for _, rows in having for token in rows})
        }
        sources[f"{module} (tokens)"] = [label for label, _ in having]
    modules = tuple(dict.fromkeys(module for each in trained for module in each.modules))
    return Trained(tensors, tokens, modules, any(each.tying for each in trained)), sources


def _mean(key: str, held: Sequence[tuple[str, Tensor]]) -> Tensor:
    first, one = held[0]
    for label, other in held[1:]:
        if other.shape != one.shape:
            raise UserError(
                f"{key} is {tuple(one.shape)} in {first} and {tuple(other.shape)} in {label}, which have no mean; add "
                f"--without {key.partition(',')[0].removesuffix('.weight')} to leave it out."
            )
    if len(held) == 1:
        return one
    return torch.stack([each.float() for _, each in held]).mean(dim=0).to(one.dtype)


def check_apart(adapters: Sequence[tuple[str, Collection[str], Trained]]) -> None:
    """Refuse a module that one adapter changes by an update or rows and another replaces as a whole.

    Args:
        adapters: label, modules with an update, and other trained tensors, of each adapter.

    Raises:
        UserError: there is such a module.
    """
    changed = {module: label for label, updated, trained in adapters for module in (*updated, *trained.tokens)}
    for label, _, trained in adapters:
        for key in trained.tensors:
            module = key.rpartition(".")[0]
            if module in changed:
                raise UserError(
                    f"{label} has {module} trained as a whole, and {changed[module]} has an update of it, which cannot "
                    f"be merged; add --without {module} to leave it out of both."
                )
