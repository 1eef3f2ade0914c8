"""PEFT's LoRA, DoRA and AdaLoRA folders as exact updates.

Anything that changes ΔW in a way not handled here is refused: a merge must not guess.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from hiplora.adapters.fields import LoraFields
from hiplora.adapters.files import ADAPTER_CONFIG
from hiplora.adapters.weights import Weights
from hiplora.errors import UserError
from hiplora.spectral.recipes import truncated_svd
from hiplora.updates import Deferred, LowRank, Update, difference, dora, zero

KEY = re.compile(r"^(?P<module>.+)\.lora_(?P<part>A|B|E|magnitude_vector)(?:\.weight)?$")


def lora_updates(
    source: str, tensors: Mapping[str, Tensor], fields: LoraFields, *, weights: Weights | None
) -> dict[str, Update]:
    """The updates (m, n) of the factors in an adapter folder, by module, in float32.

    Args:
        source: the adapter's name in messages.
        tensors: the factors, by the names that ``read_tensors`` gives them.
        weights: the backbone's; needed by DoRA and PiSSA.

    Raises:
        UserError: the factors are incomplete or do not fit the configuration, or ``weights`` are needed.
    """
    modules = _modules(source, tensors)
    for name, part in modules.items():
        _check_complete(source, name, part, fields)
    if (fields.dora or fields.pissa) and weights is None:
        kind = "DoRA" if fields.dora else "PiSSA"
        raise UserError(f"{source} is a {kind} adapter, whose update depends on the backbone; add --backbone DIR.")
    return {name: _update(source, name, part, fields, weights) for name, part in modules.items()}


def factor_shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """The shape (out, in) of the update of each module whose two factors a folder holds."""
    pairs = {name: [tensors.get(f"{name}.lora_{part}.weight") for part in "BA"] for name in _adapted(tensors)}
    return {
        name: (B.shape[0], A.shape[1])
        for name, (B, A) in pairs.items()
        if A is not None and B is not None and A.ndim == B.ndim == 2
    }


def _adapted(tensors: Mapping[str, Tensor]) -> list[str]:
    return [match["module"] for key in tensors if (match := KEY.match(key)) and match["part"] == "A"]


def beyond_lora(source: str, key: str, tensor: Tensor) -> UserError:
    """The error for a tensor that is not part of a low-rank update."""
    return UserError(
        f"{source} holds {key} of shape {tuple(tensor.shape)}, which is not a LoRA factor of a linear layer; "
        "such an adapter can be neither scored nor merged here."
    )


def _modules(source: str, tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Tensors by module and part, in float32. Raises UserError for one that is no LoRA factor or DoRA magnitude."""
    modules: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = KEY.match(key)
        if not match or tensor.ndim > 2:
            raise beyond_lora(source, key, tensor)
        modules.setdefault(match["module"], {})[match["part"]] = tensor.float()
    return modules


def _check_complete(source: str, name: str, part: Mapping[str, Tensor], fields: LoraFields) -> None:
    """Refuse a module that lacks a tensor, or whose tensors do not fit each other or the configuration."""
    wanted = (
        {"A", "B"} | ({"E"} if fields.kind == "ADALORA" else set()) | ({"magnitude_vector"} if fields.dora else set())
    )
    for lacking in sorted(wanted - set(part)):
        raise UserError(f"{source} holds no lora_{lacking} for {name}; the file is incomplete, save or fetch it again.")
    for more in sorted(set(part) - wanted):
        raise UserError(
            f"{source} holds lora_{more} for {name}, but its {ADAPTER_CONFIG} says "
            f"{'use_dora=false' if more == 'magnitude_vector' else f'peft_type={fields.kind}'}; save it again."
        )
    A, B = part["A"], part["B"]
    sizes = {"magnitude_vector": B.shape[0], "E": A.shape[0]}
    odd = [f"lora_{p} of {tuple(part[p].shape)}" for p, size in sizes.items() if p in part and part[p].numel() != size]
    if A.ndim != 2 or B.ndim != 2 or A.shape[0] != B.shape[1] or odd:
        shapes = " and ".join([f"lora_A and lora_B of {tuple(A.shape)} and {tuple(B.shape)}", *odd])
        raise UserError(f"{source} holds {shapes} for {name}, which do not fit; save it again.")
    if fields.kind == "LORA" and A.shape[0] != fields.rank_of(name):
        raise UserError(
            f"{source} holds rank {A.shape[0]} for {name}, but r or rank_pattern in its {ADAPTER_CONFIG} says "
            f"{fields.rank_of(name)}, so its scaling is not known; correct the one that is wrong."
        )


def _update(source: str, name: str, part: Mapping[str, Tensor], fields: LoraFields, weights: Weights | None) -> Update:
    if fields.kind == "ADALORA":
        return _adalora(part, fields)
    product = LowRank(part["B"] * fields.scaling(name, part["A"].shape[0]), part["A"])
    if not fields.dora and not fields.pissa:
        return product
    assert weights is not None
    shape = product.shape
    weights.transposed(name, shape)  # refuses another backbone before anything is computed
    if fields.pissa:
        product = difference(product, _taken_out(weights.matrix(name, shape), product.rank))
    if not fields.dora:
        return product
    magnitude = part["magnitude_vector"]
    return Deferred(lambda: dora(weights.matrix(name, shape).float(), product, magnitude), shape)


def _taken_out(weight: Tensor, rank: int) -> LowRank:
    """What PEFT's PiSSA subtracts from a weight (m, n) at the start: its best approximation of this rank."""
    basis = truncated_svd(weight.float(), k=min(rank, *weight.shape), recipe="exact")
    return LowRank(basis.U * basis.S, basis.V.mT)


def _adalora(part: Mapping[str, Tensor], fields: LoraFields) -> LowRank:
    """α / init_r · P diag(Λ) Q: PEFT keeps the initial rank's scaling after pruning; for α ≤ 0 it is 1."""
    A, B = part["A"], part["B"]
    scaling = (fields.alpha if fields.alpha > 0 else fields.rank) / (fields.rank + 1e-5)
    if not A.numel():  # every triplet of this matrix was pruned
        return zero((B.shape[0], A.shape[1]))
    return LowRank(B * (part["E"].flatten() * scaling), A)
