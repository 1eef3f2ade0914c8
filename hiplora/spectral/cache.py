"""The SVD cache: one verified file of singular triplets per backbone and settings.

The file ``svd-<key>.safetensors`` carries the SHA-256 of its own tensors. A file that does not match it or does not
parse is renamed to ``….corrupt`` for inspection and computed again, with a warning.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from hiplora.disk import default_cache_dir, lock, write_atomically
from hiplora.errors import UserError
from hiplora.spectral.recipes import Basis, resolve_recipe, truncated_svd
from hiplora.spectral.stored import refuse_quantised

_FORMAT = 2  # raise it when a recipe's directions change, so that new code reads no old file
_CHUNK = 2**18  # values hashed at a time: their copies fit in the CPU's cache
_TYPES = (torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Directions:
    """Bases of all weights, on the CPU, and the file that holds them.

    ``key`` identifies the computation and is part of the file name ``path``; ``cached`` says whether the file existed.
    """

    bases: dict[str, Basis]
    key: str
    path: Path
    cached: bool


def weights_hash(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) over the sorted names, shapes and values of the weights, independent of their dtype.

    The same values in bf16 and in fp32 have the same SVD, so they have the same hash. About 2 GB/s per core.
    """
    return _hash(weights, _value_digest)


def _hash(tensors: Mapping[str, Tensor], digest: Callable[[Tensor], str]) -> str:
    def described(name: str) -> list[Any]:
        tensor = tensors[name]
        return [name, list(tensor.shape), digest(tensor)]

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        return hashlib.sha256(json.dumps(list(pool.map(described, sorted(tensors)))).encode()).hexdigest()


def load_or_compute(
    weights: Mapping[str, Tensor],
    *,
    k_max: int = 64,
    recipe: str = "auto",
    seed: int = 0,
    oversampling: int = 8,
    power_iterations: int = 2,
    tolerance: float = 1e-3,
    exact_up_to: int = 2048,
    cache_dir: Path | None = None,
) -> Directions:
    """Bases of all weights, computed once per backbone and settings, then read from their file.

    Args:
        weights: module names to (m, n) matrices; each gets min(k_max, m, n) triplets.
        cache_dir: folder of the file; None for ``svd/`` in the default cache.

    The other options are those of ``truncated_svd``. A lock makes parallel processes compute once.

    Raises:
        UserError: a matrix has no SVD or is quantised, or the file cannot be written.
    """
    if k_max < 1:
        raise UserError(f"svd.k_max = {k_max} keeps no direction; choose 1 or more, 64 by default.")
    options = {
        "recipe": recipe,
        "seed": seed,
        "oversampling": oversampling,
        "power_iterations": power_iterations,
        "tolerance": tolerance,
        "exact_up_to": exact_up_to,
    }
    key = _key(weights, k_max=k_max, options=options)
    folder = default_cache_dir() / "svd" if cache_dir is None else Path(cache_dir)
    path = folder / f"svd-{key}.safetensors"
    bases, _ = _read(path)
    if bases is not None:
        return Directions(bases, key, path, cached=True)
    with lock(path):
        bases, damage = _read(path)  # another process may have written it meanwhile
        if damage:
            _set_aside(path, damage)
        if bases is not None:
            return Directions(bases, key, path, cached=True)
        bases = _compute(weights, k_max=k_max, options=options)
        _write(path, bases)
    return Directions(bases, key, path, cached=False)


def _key(weights: Mapping[str, Tensor], *, k_max: int, options: dict) -> str:
    """16 hex digits over the weights, k_max and the options that the weights' recipes use."""
    read = {
        "exact": (),
        "converged": ("seed", "oversampling", "tolerance"),
        "randomized": ("seed", "oversampling", "power_iterations"),
    }
    recipes = {}
    for name, weight in weights.items():
        refuse_quantised(name, weight)
        recipes[name] = resolve_recipe(weight.shape, recipe=options["recipe"], exact_up_to=options["exact_up_to"])
    used = {option: options[option] for recipe in recipes.values() for option in read[recipe]}
    identity = [_FORMAT, weights_hash(weights), k_max, recipes, used]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def _compute(weights: Mapping[str, Tensor], *, k_max: int, options: dict) -> dict[str, Basis]:
    workspace = _workspace(weights)

    def basis_of(name: str) -> Basis:
        weight = weights[name]
        try:
            basis = truncated_svd(weight, k=min(k_max, *weight.shape), workspace=workspace, **options)
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
        return Basis(basis.U.cpu(), basis.S.cpu(), basis.V.cpu(), basis.residual)

    recipe, exact_up_to = options["recipe"], options["exact_up_to"]
    small = [
        name
        for name, weight in weights.items()
        if weight.device.type == "cpu"
        and resolve_recipe(weight.shape, recipe=recipe, exact_up_to=exact_up_to) == "exact"
    ]
    others = [name for name in weights if name not in small]
    bases: dict[str, Basis] = {}
    with tqdm(total=len(weights), desc="SVD of the backbone", unit="matrix", delay=2.0) as bar:
        for name, basis in chain(_side_by_side(basis_of, small), ((name, basis_of(name)) for name in others)):
            bases[name] = basis
            bar.update()
    return {name: bases[name] for name in weights}


def _side_by_side(basis_of: Callable[[str], Basis], names: Sequence[str]) -> Iterator[tuple[str, Basis]]:
    """The bases of small CPU matrices by name: several exact SVDs at a time, each on one thread.

    LAPACK's last bits depend on the number of threads, and training amplifies them until scores differ. Several threads
    on one of these small matrices would gain little anyway.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(min(8, before), initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield from zip(names, pool.map(basis_of, names), strict=True)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


def _workspace(weights: Mapping[str, Tensor]) -> Tensor | None:
    """One fp32 buffer for the copies of all CPU weights: page faults of new buffers would cost more than the copies.

    None unless all weights are on the CPU and none is in fp32.
    """
    sizes = [w.numel() for w in weights.values() if w.device.type == "cpu" and w.dtype != torch.float32]
    return torch.empty(max(sizes)) if sizes and len(sizes) == len(weights) else None


def _read(path: Path) -> tuple[dict[str, Basis] | None, str]:
    """The bases of an intact file, else None; and what is wrong with a damaged file."""
    if not path.exists():
        return None, ""
    try:
        with safe_open(path, framework="pt") as file:
            checksum = (file.metadata() or {}).get("sha256")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        return None, f"it does not parse ({error})"
    if _hash(tensors, _byte_digest) != checksum:
        return None, "its checksum does not match"
    return _from_tensors(tensors), ""


def _set_aside(path: Path, damage: str) -> None:
    aside = path.with_suffix(".corrupt")
    os.replace(path, aside)
    warnings.warn(f"{path} is damaged: {damage}; renamed to {aside.name} and computed again.", stacklevel=3)


def _write(path: Path, bases: Mapping[str, Basis]) -> None:
    tensors = _to_tensors(bases)
    write_atomically(path, save(tensors, metadata={"sha256": _hash(tensors, _byte_digest)}))


def _to_tensors(bases: Mapping[str, Basis]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, basis in bases.items():
        tensors |= {f"{name}.U": basis.U, f"{name}.S": basis.S, f"{name}.V": basis.V}
        tensors[f"{name}.residual"] = torch.tensor(basis.residual, dtype=torch.float64)
    return tensors


def _from_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Basis]:
    suffix = ".residual"
    names = [name.removesuffix(suffix) for name in tensors if name.endswith(suffix)]
    return {
        name: Basis(
            tensors[f"{name}.U"],
            tensors[f"{name}.S"],
            tensors[f"{name}.V"],
            float(tensors[f"{name}.residual"]),
        )
        for name in names
    }


def _value_digest(tensor: Tensor) -> str:
    """Digest of the values: each chunk is hashed as the narrowest type that holds it exactly, with that type's name."""
    total = hashlib.sha256()
    for chunk in tensor.detach().reshape(-1).split(_CHUNK):
        narrow = _narrowest(chunk)
        total.update(str(narrow.dtype).encode())
        total.update(_bytes(narrow))
    return total.hexdigest()


def _narrowest(values: Tensor) -> Tensor:
    fits = (t for t in _TYPES if t == values.dtype or torch.equal(values.to(t).to(values.dtype), values))
    return values.to(next(fits, values.dtype))  # its own dtype if no comparison holds, as with NaN


def _byte_digest(tensor: Tensor) -> str:
    return f"{tensor.dtype} {hashlib.sha256(_bytes(tensor)).hexdigest()}"


def _bytes(tensor: Tensor) -> memoryview:
    # A view as bytes, since NumPy has no bfloat16; flattened first, since a scalar has no byte view.
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
