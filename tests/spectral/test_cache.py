from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hiplora.errors import UserError
from hiplora.spectral import cache, load_or_compute, weights_hash


@pytest.fixture
def weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"a.q_proj": (40, 40), "a.k_proj": (10, 40)}
    return {name: torch.randn(shape, generator=generator).bfloat16() for name, shape in shapes.items()}


@pytest.fixture
def never(monkeypatch: pytest.MonkeyPatch):
    def activate() -> None:
        def fail(*_, **__):
            raise AssertionError("computed again")

        monkeypatch.setattr(cache, "truncated_svd", fail)

    return activate


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_exact_directions_do_not_depend_on_the_number_of_threads(threads, tmp_path: Path) -> None:
    weights = {"w": torch.randn(576, 576, generator=torch.Generator().manual_seed(0))}
    found = []
    for count in (1, 2):
        threads(count)
        bases = load_or_compute(weights, cache_dir=tmp_path / str(count)).bases
        assert torch.get_num_threads() == count
        found.append(bases["w"])
    assert torch.equal(found[0].U, found[1].U)
    assert torch.equal(found[0].V, found[1].V)


def test_second_call_reads_what_the_first_computed(weights, never, tmp_path: Path) -> None:
    computed = load_or_compute(weights, k_max=16, cache_dir=tmp_path)
    never()
    read = load_or_compute(weights, k_max=16, cache_dir=tmp_path)
    assert (computed.cached, read.cached) == (False, True)
    assert computed.key == read.key
    assert list(tmp_path.glob("*.safetensors")) == [read.path] == [tmp_path / f"svd-{read.key}.safetensors"]
    first, second = computed.bases, read.bases
    assert first.keys() == second.keys() == weights.keys()
    for name in weights:
        assert all(torch.equal(getattr(first[name], part), getattr(second[name], part)) for part in "USV")
        assert first[name].residual == second[name].residual
    assert second["a.k_proj"].k == 10  # a matrix smaller than k_max gives all its directions


def test_default_folder_is_in_the_projects_cache(weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIPLORA_CACHE", str(tmp_path))
    found = load_or_compute(weights, k_max=4)
    assert found.path == tmp_path / "svd" / f"svd-{found.key}.safetensors"
    assert found.path.is_file()


def test_the_same_values_in_another_type_are_computed_once(weights, never, tmp_path: Path) -> None:
    """A bf16 backbone may be held in fp32; the directions go by the values alone."""
    key = load_or_compute(weights, k_max=4, cache_dir=tmp_path).key
    never()
    for dtype in (torch.float32, torch.float64):
        wider = {name: weight.to(dtype) for name, weight in weights.items()}
        assert load_or_compute(wider, k_max=4, cache_dir=tmp_path).key == key


def test_key_changes_with_what_changes_the_directions_only(weights, tmp_path: Path) -> None:
    def key(values: dict[str, Tensor] = weights, **options) -> str:
        return load_or_compute(values, k_max=options.pop("k_max", 4), cache_dir=tmp_path, **options).key

    changed = {**weights, "a.q_proj": weights["a.q_proj"].clone()}
    changed["a.q_proj"][3, 4] += 1
    same = [key(), key(seed=5), key(tolerance=1e-2), key(recipe="exact"), key(power_iterations=9)]
    assert len(set(same)) == 1
    randomized = [
        key(recipe="randomized", **o) for o in ({}, {"seed": 1}, {"oversampling": 3}, {"power_iterations": 1})
    ]
    different = [key(), key(changed), key(k_max=5), key(exact_up_to=4), *randomized]
    assert len(set(different)) == len(different)


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "garbage"])
def test_a_damaged_file_is_set_aside_and_computed_again(damage: str, weights, tmp_path: Path) -> None:
    intact = load_or_compute(weights, k_max=8, cache_dir=tmp_path)
    path = intact.path
    content = path.read_bytes()
    middle = len(content) - 100
    broken = {
        "flip": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "truncate": content[:middle],
        "empty": b"",
        "garbage": b"not a tensor " * 50,
    }[damage]
    path.write_bytes(broken)
    with pytest.warns(UserWarning, match="damaged"):
        again = load_or_compute(weights, k_max=8, cache_dir=tmp_path)
    assert not again.cached
    assert torch.equal(again.bases["a.q_proj"].U, intact.bases["a.q_proj"].U)
    assert path.read_bytes() == content
    assert path.with_suffix(".corrupt").read_bytes() == broken


def test_a_full_disk_leaves_no_half_file(weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="disk is full"):
        load_or_compute(weights, k_max=8, cache_dir=tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_two_processes_compute_once(tmp_path: Path) -> None:
    code = f"""
import torch
from pathlib import Path
from hiplora.spectral import cache
real = cache.truncated_svd
def counted(*arguments, **options):
    with open({str(tmp_path / "computed")!r}, "a") as log:
        log.write("x")
    return real(*arguments, **options)
cache.truncated_svd = counted
open({str(tmp_path)!r} + f"/ready{{__import__('os').getpid()}}", "w").close()
while len(list(Path({str(tmp_path)!r}).glob("ready*"))) < 2:
    pass
weights = {{str(i): torch.randn(80, 80, generator=torch.Generator().manual_seed(i)) for i in range(20)}}
cache.load_or_compute(weights, cache_dir=Path({str(tmp_path)!r}))
"""
    both = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) for _ in range(2)]
    messages = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], messages
    assert (tmp_path / "computed").read_text() == "x" * 20


def test_an_error_names_the_module(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"layers\.3\.q_proj: the weight holds NaN"):
        load_or_compute({"layers.3.q_proj": torch.full((4, 4), float("nan"))}, cache_dir=tmp_path)
    with pytest.raises(UserError, match="k_max = 0"):
        load_or_compute({"q_proj": torch.eye(4)}, k_max=0, cache_dir=tmp_path)


def test_hash_sees_names_shapes_and_values() -> None:
    base = {"a": torch.arange(6.0).reshape(2, 3) / 3, "b": torch.ones(cache._CHUNK + 7, dtype=torch.bfloat16)}
    last = base["b"].float()
    last[-1] += 2**-20  # exact in fp32 alone
    same = [
        {"b": base["b"], "a": base["a"].T.contiguous().T},  # neither order nor memory layout matters
        {"b": base["b"].half(), "a": base["a"].double()},  # nor the type, while it holds the values
    ]
    others = [
        {"c": base["a"], "b": base["b"]},
        {**base, "a": base["a"].reshape(3, 2)},
        {**base, "a": base["a"].bfloat16()},
        {**base, "a": base["a"].double() + 1e-12},
        {**base, "b": last},
    ]
    assert {weights_hash(weights) for weights in same} == {weights_hash(base)}
    assert len({weights_hash(weights) for weights in [base, *others]}) == 6
