"""Adapter folders in and out, with stock PEFT as the judge; the command line and its sentences."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from hiplora.adapters.reading import read_adapter
from hiplora.adapters.writing import write_lora
from hiplora.errors import UserError
from hiplora.merging import merge
from hiplora.merging.__main__ import main
from hiplora.updates import Dense, LowRank, zero
from tests.limits import small_files
from tests.tiny import tiny_llama_folder

TARGETS = ["q_proj", "v_proj"]
OPTIONS = {
    "plain": {"r": 4, "lora_alpha": 8},
    "patterns": {"r": 2, "rank_pattern": {"v_proj": 3}, "alpha_pattern": {r"layers.1.*q_proj": 5}, "lora_alpha": 4},
    "rslora": {"r": 4, "lora_alpha": 4, "use_rslora": True},
    "dora": {"r": 2, "lora_alpha": 4, "use_dora": True},
}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory) -> Path:
    return tiny_llama_folder(tmp_path_factory.mktemp("backbone"))


def load(backbone: Path) -> nn.Module:
    return AutoModelForCausalLM.from_pretrained(backbone, dtype=torch.float32)


def targets(model: nn.Module) -> dict[str, Tensor]:
    return {n.removesuffix(".weight"): p.detach() for n, p in model.named_parameters() if n.split(".")[-2] in TARGETS}


@pytest.fixture(scope="module")
def adapters(backbone, tmp_path_factory) -> dict[str, tuple[Path, dict[str, Tensor]]]:
    """Folders of stock PEFT adapters, and what each one adds to every weight according to PEFT."""
    made = {}
    for seed, (kind, options) in enumerate(OPTIONS.items()):
        torch.manual_seed(seed)
        model = get_peft_model(load(backbone), LoraConfig(target_modules=TARGETS, task_type="CAUSAL_LM", **options))
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data += 0.1 * torch.randn_like(parameter)
        folder = tmp_path_factory.mktemp(kind)
        model.save_pretrained(folder)
        before, after = targets(load(backbone)), targets(model.merge_and_unload())
        made[kind] = folder, {name: after[name] - before[name] for name in before}
    return made


def assert_close(updates, expected: dict[str, Tensor], tolerance: float = 1e-6) -> None:
    assert set(updates) == set(expected)
    for name, delta in expected.items():
        torch.testing.assert_close(updates[name].dense(), delta, rtol=1e-4, atol=tolerance)


def run(*arguments: object) -> int:
    return main([str(a) for a in arguments])


@pytest.mark.parametrize("kind", OPTIONS)
def test_reading_gives_what_peft_adds_to_the_weights(kind, adapters, backbone):
    folder, expected = adapters[kind]
    read = read_adapter(str(folder), backbone=backbone)
    assert all(isinstance(u, Dense if kind == "dora" else LowRank) for u in read.updates.values())
    assert_close(read.updates, expected)
    assert read.task_type == "CAUSAL_LM"


def test_addition_by_command_is_exact_in_stock_peft(adapters, backbone, tmp_path, capsys):
    (plain, a), (patterns, b), (rslora, c) = (adapters[k] for k in ("plain", "patterns", "rslora"))
    assert run(plain, patterns, rslora, "--operator", "addition", "--out", tmp_path) == 0
    assert "relative error 0.00e+00" in capsys.readouterr().out
    merged = PeftModel.from_pretrained(load(backbone), tmp_path).merge_and_unload()
    before, after = targets(load(backbone)), targets(merged)
    for name in before:
        torch.testing.assert_close(after[name] - before[name], a[name] + b[name] + c[name], rtol=1e-4, atol=1e-6)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["rank_pattern"], config["alpha_pattern"]) == (11, 11, {}, {})
    assert json.loads((tmp_path / "merge_report.json").read_text())["operator"] == "addition"


def test_a_rank_cuts_and_the_error_is_the_true_one(adapters, tmp_path):
    folders = [adapters[k][0] for k in ("plain", "rslora")]
    assert (
        run(
            *folders,
            "--operator",
            "ties",
            "--calibration",
            "pico",
            "--density",
            0.5,
            "--rank",
            3,
            "--out",
            tmp_path / "cut",
        )
        == 0
    )
    assert (
        run(
            *folders,
            "--operator",
            "ties",
            "--calibration",
            "pico",
            "--density",
            0.5,
            "--rank",
            999,
            "--out",
            tmp_path / "all",
        )
        == 0
    )
    cut, whole = (read_adapter(str(tmp_path / d)).updates for d in ("cut", "all"))
    lost = sum(torch.dist(cut[n].dense(), whole[n].dense()) ** 2 for n in whole) ** 0.5
    size = sum(whole[n].norm() ** 2 for n in whole) ** 0.5
    report = json.loads((tmp_path / "cut" / "merge_report.json").read_text())
    assert report["relative_error"] == pytest.approx(float(lost) / size, rel=1e-3)
    assert 0 < report["relative_error"] <= report["worst_relative_error"] < 1
    assert {u.rank for u in cut.values()} == {3}


def test_factored_updates_are_cut_to_their_best_approximation(tmp_path):
    g = torch.Generator().manual_seed(0)
    update = LowRank(torch.randn(12, 6, generator=g), torch.randn(6, 10, generator=g))
    written = write_lora({"a.q_proj": update, "b.q_proj": LowRank(update.B[:, :1], update.A[:1])}, tmp_path, rank=2)
    read = read_adapter(str(tmp_path)).updates
    u, s, vh = torch.linalg.svd(update.dense())
    torch.testing.assert_close(read["a.q_proj"].dense(), u[:, :2] * s[:2] @ vh[:2])
    torch.testing.assert_close(read["b.q_proj"].dense(), update.B[:, :1] @ update.A[:1])
    assert written["worst_relative_error"] == pytest.approx(float(s[2:].norm() / s.norm()), rel=1e-4)
    assert (written["rank"], written["min_rank"], written["worst_matrix"]) == (2, 1, "a.q_proj")


def test_folding_changes_the_target_weights_and_nothing_else(adapters, backbone, tmp_path):
    folders = [adapters[k][0] for k in ("plain", "dora")]
    arguments = ("--operator", "addition", "--backbone", backbone, "--fold", "--out", tmp_path)
    assert run(*folders, *arguments) == 0
    before, after = (load_file(d / "model.safetensors") for d in (backbone, tmp_path))
    expected = {n: adapters["plain"][1][n] + adapters["dora"][1][n] for n in adapters["plain"][1]}
    assert set(before) == set(after)
    for key in before:
        delta = expected.get(key.removesuffix(".weight"))
        torch.testing.assert_close(after[key], before[key] if delta is None else before[key] + delta, rtol=0, atol=1e-6)
    AutoModelForCausalLM.from_pretrained(tmp_path)


@pytest.mark.parametrize(("principal", "save_basis"), [(True, True), (True, False), (False, True)])
def test_hip_lora_folders_give_what_the_model_gives(principal, save_basis, adapters, backbone, tmp_path, monkeypatch):
    from hiplora import HipLoraConfig

    torch.manual_seed(0)
    options = {"r": 2, "k": 3, "k_max": 4, "save_basis": save_basis, "svd_cache_dir": str(tmp_path / "cache")}
    config = HipLoraConfig(target_modules=TARGETS, task_type="CAUSAL_LM", principal=principal, **options)
    model = get_peft_model(load(backbone), config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path / "hip")
    held = model.base_model.updates()
    # The backbone as a whole need not fit into memory: only the adapted matrices are read.
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", None)
    read = read_adapter(str(tmp_path / "hip"), backbone=backbone).updates
    assert_close(read, {name: update.dense() for name, update in held.items()})
    plain = read_adapter(str(adapters["plain"][0])).updates
    if principal:
        added = merge([read, read], "addition").updates
        assert {update.rank for update in added.values()} == {3 + 2 * 2}  # the basis is known to be one
    # Both depend on the factorisation, not on the update alone.
    for operator, calibration in (("core_space", "none"), ("addition", "pico")):
        left, right = (merge([u, plain], operator, calibration=calibration).updates for u in (read, held))
        assert_close(left, {name: update.dense() for name, update in right.items()}, 1e-4)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("task_arithmetic", "--scale", "nan"), "--scale nan must be a finite number"),
        (("task_arithmetic", "--scale", "-inf"), "--scale -inf must be a finite number"),
        (("tsvm", "--scale", "1e400"), "--scale inf must be a finite number"),
        (("task_arithmetic", "--scale", "0"), "--scale 0 merges to nothing; give another number, or leave it out for"),
        (("tsvm", "--scale", "-0"), "--scale -0 merges to nothing; give another number."),
        (("ties", "--density", "0"), "--density 0 must be above 0, e.g. 0.2"),
        (("ties", "--density", "some"), "argument --density: some is not a number"),
        (("knots", "--threshold", "layer"), "--threshold layer is not known; choose one of global, matrix"),
        (("dare", "--drop", "1", "--seed", "0"), "--drop 1 must be below 1, e.g. 0.8"),
        (("dare",), "--operator dare draws at random; add a seed, e.g. --seed 0"),
        (("addition", "--calibration", "random"), "--calibration random draws at random; add a seed"),
        (("della", "--drop", "0.95", "--seed", "0"), "--drop 0.95 with --window 0.2 leaves [0, 1)"),
        (("dare", "--seed", "-1"), "argument --seed: -1 must be a whole number of at least 0 and below"),
        (("dare", "--seed", "nan"), "argument --seed: nan must be a whole number"),
        (("ties", "--rank", "0"), "argument --rank: 0 must be a whole number of at least 1"),
        (("ties", "--rank", "1e400"), "argument --rank: 1e400 must be a whole number"),
        (("sum",), "argument --operator: invalid choice: 'sum'"),
        (("task_arithmetic", "--scale", "1e300"), "--scale 1e+300 must be from 1e-4 to 1e4 in magnitude"),
    ],
)
def test_numbers_without_a_sense_are_refused_as_they_are_typed(words, sentence, adapters, tmp_path, capsys):
    assert run(adapters["plain"][0], "--operator", *words, "--out", tmp_path / "out") == 2
    printed = capsys.readouterr().err
    assert sentence in printed
    assert printed.count("\n") == 1
    assert "merge." not in printed
    assert not (tmp_path / "out").exists()


def test_weights_by_command_negative_ones_too(adapters, tmp_path, capsys):
    (plain, a), (rslora, b) = adapters["plain"], adapters["rslora"]
    for words in (("--weights", "-1,0.5"), ("--weights=-1,0.5",), ("--weights", "-1e0,.5")):
        assert run(plain, rslora, "--operator", "addition", *words, "--out", tmp_path / "out") == 0
        assert_close(read_adapter(str(tmp_path / "out")).updates, {n: -a[n] + b[n] / 2 for n in a})
        assert json.loads((tmp_path / "out" / "merge_report.json").read_text())["weights"] == [-1, 0.5]
    for operator, weights, sentence in (
        ("ties", "1", "--weights 1 is for 1 adapters, but there are 2; give one number for each, in their order."),
        ("ties", "1,nan", "--weights nan must be a finite number"),
        ("ties", "1,x", "argument --weights: x is not a number"),
        ("dare", "0,0", "--weights 0,0 merges to nothing"),
        ("tsvm", "1,2", "--operator tsvm has no option --weights; it has --scale"),
    ):
        words = ("--operator", operator, "--weights", weights, "--rank", 4, "--out", tmp_path / "no")
        assert run(plain, rslora, *words) == 2
        assert sentence in capsys.readouterr().err


def test_one_adapter_or_the_sum_of_several_is_written_scaled(adapters, backbone, tmp_path, capsys):
    (plain, a), (rslora, b) = adapters["plain"], adapters["rslora"]
    assert run(plain, "--scale", 0.75, "--out", tmp_path / "one") == 0
    assert_close(read_adapter(str(tmp_path / "one")).updates, {name: 0.75 * delta for name, delta in a.items()})
    loaded = PeftModel.from_pretrained(load(backbone), tmp_path / "one").merge_and_unload()
    before, after = targets(load(backbone)), targets(loaded)
    for name, delta in a.items():
        torch.testing.assert_close(after[name] - before[name], 0.75 * delta, rtol=1e-4, atol=1e-6)
    assert run(plain, rslora, "--scale", 0.5, "--out", tmp_path / "two") == 0
    assert_close(read_adapter(str(tmp_path / "two")).updates, {name: 0.5 * (a[name] + b[name]) for name in a})
    capsys.readouterr()
    for words, told in (
        (["--scale", 0], "--scale 0 merges to nothing"),
        (["--scale", "nan"], "--scale nan must be a finite number"),
        ([], "give --operator with one of addition"),
    ):
        assert run(plain, *words, "--out", tmp_path / "none") == 2
        assert told in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_options_are_checked_before_anything_is_read(tmp_path, capsys):
    assert run(tmp_path / "absent", "--operator", "della", "--seed", 0, "--out", tmp_path / "out") == 2
    assert "--operator della gives full-rank updates; give --rank R" in capsys.readouterr().err
    assert run(tmp_path / "absent", "--operator", "ties", "--density", "0", "--out", tmp_path / "out") == 2
    assert "--density 0 must be above 0" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["adapter", "fold"])
def test_a_merge_that_leaves_nothing_says_so(how, adapters, backbone, tmp_path, capsys):
    fold = ("--fold", "--backbone", backbone) if how == "fold" else ("--rank", 4)
    words = ("--operator", "ties", "--density", "1e-9", *fold, "--out", tmp_path / "out")
    assert run(adapters["plain"][0], *words) == 0
    assert "Every merged update is 0" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "merge_report.json").read_text())["zero"] is True


def test_factors_that_cancel_each_other_are_nothing_too(tmp_path):
    g = torch.Generator().manual_seed(0)
    B, A = torch.randn(12, 3, generator=g), torch.randn(3, 10, generator=g)
    cancelled = LowRank(torch.cat([B, -B], dim=1), torch.cat([A, A]))
    assert write_lora({"a.q_proj": cancelled}, tmp_path / "none")["zero"] is True
    assert write_lora({"a.q_proj": cancelled}, tmp_path / "cut", rank=2)["zero"] is True
    assert "zero" not in write_lora({"a.q_proj": cancelled, "b.q_proj": LowRank(B, A)}, tmp_path / "some")


def only(folder: Path, out: Path, module: str) -> Path:
    """A copy of an adapter folder with the factors of one kind of module."""
    edited(folder, out, target_modules=[module])
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({k: v for k, v in tensors.items() if module in k}, out / "adapter_model.safetensors")
    return out


def test_an_adapter_without_a_module_leaves_it_to_the_others(adapters, tmp_path, capsys):
    plain, rslora = adapters["plain"], adapters["rslora"]
    q = only(plain[0], tmp_path / "q", "q_proj")
    assert run(rslora[0], q, "--operator", "addition", "--out", tmp_path / "out") == 0
    assert "does not adapt model.layers.0.self_attn.v_proj (2 such)" in capsys.readouterr().err
    merged = read_adapter(str(tmp_path / "out")).updates
    assert_close(merged, {name: d + ("q_proj" in name) * plain[1][name] for name, d in rslora[1].items()})


def ranks(folder: Path) -> dict[str, set[int]]:
    """Ranks in the file by kind of module."""
    found: dict[str, set[int]] = {}
    for key, tensor in load_file(folder / "adapter_model.safetensors").items():
        found.setdefault(key.split(".")[-3], set()).add(tensor.shape[0] if "lora_A" in key else tensor.shape[1])
    return found


def test_one_rank_for_all_modules_is_exact_and_scaled_alike_by_any_tool(adapters, backbone, tmp_path, capsys):
    plain, rslora = adapters["plain"], adapters["rslora"]
    q = only(plain[0], tmp_path / "q", "q_proj")
    addition = (rslora[0], q, "--operator", "addition", "--out")
    assert run(*addition, tmp_path / "one") == 0
    assert (
        "LoRA of rank 8, relative error 0.00e+00; 2 of 4 modules have a smaller rank, from 4" in capsys.readouterr().out
    )
    assert run(*addition, tmp_path / "own", "--ranks", "own") == 0
    assert "LoRA of ranks 4 to 8, relative error 0.00e+00\n" in capsys.readouterr().out
    # q gives nothing to v_proj, no rank either; alpha / rank of every tensor is 1 where all have one rank.
    assert ranks(tmp_path / "own") == {"q_proj": {8}, "v_proj": {4}}
    assert ranks(tmp_path / "one") == {"q_proj": {8}, "v_proj": {8}}
    config = json.loads((tmp_path / "one" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["rank_pattern"], config["alpha_pattern"]) == (8, 8, {}, {})
    for folder in ("one", "own"):
        merged = targets(PeftModel.from_pretrained(load(backbone), tmp_path / folder).merge_and_unload())
        for name, before in targets(load(backbone)).items():
            expected = rslora[1][name] + ("q_proj" in name) * plain[1][name]
            torch.testing.assert_close(merged[name] - before, expected, rtol=1e-4, atol=1e-6)
    assert run(*addition, tmp_path / "cut", "--rank", 2) == 0
    assert ranks(tmp_path / "cut") == {"q_proj": {2}, "v_proj": {2}}
    assert run(*addition, tmp_path / "fold", "--fold", "--backbone", backbone, "--ranks", "own") == 2
    assert "--ranks applies to a written adapter" in capsys.readouterr().err


def test_an_update_without_factors_is_written_as_zeros(tmp_path):
    updates = {"a.q_proj": zero((6, 5)), "a.v_proj": LowRank(torch.ones(6, 1), torch.ones(1, 5))}
    for how in ("one", "own"):
        written = write_lora(updates, tmp_path / how, ranks=how)
        read = read_adapter(str(tmp_path / how)).updates
        assert (written["rank"], written["min_rank"], written["padded"]) == (1, 1, 0)
        assert not read["a.q_proj"].dense().any()
        assert (read["a.v_proj"].dense() == 1).all()


def test_the_backbones_own_weight_beside_an_adapted_head_is_no_obstacle(backbone, tmp_path):
    torch.manual_seed(0)
    base = load(backbone)
    base.config.tie_word_embeddings = False
    base.lm_head.weight = nn.Parameter(base.lm_head.weight.detach().clone())
    backbone = tmp_path / "untied"
    base.save_pretrained(backbone)
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj", "lm_head"], task_type="CAUSAL_LM"))
    model.peft_config["default"].base_model_name_or_path = "owner/name"  # not here, so that --backbone is needed
    model.save_pretrained(tmp_path / "head", save_embedding_layers=True)
    key = "base_model.model.lm_head.base_layer.weight"
    path = tmp_path / "head" / "adapter_model.safetensors"
    tensors = load_file(path)
    assert key in tensors
    with pytest.raises(UserError, match="add --backbone DIR"):
        read_adapter(str(tmp_path / "head"))
    assert "lm_head" in read_adapter(str(tmp_path / "head"), backbone=backbone).updates
    save_file(tensors | {key: tensors[key] + 1}, path)
    with pytest.raises(UserError, match="not the backbone's"):
        read_adapter(str(tmp_path / "head"), backbone=backbone)


def test_nothing_that_was_there_is_lost(adapters, backbone, tmp_path, capsys):
    plain, rslora = (adapters[kind][0] for kind in ("plain", "rslora"))
    copy, out, full = edited(plain, tmp_path / "copy"), tmp_path / "out", tmp_path / "full"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    before = (copy / "adapter_model.safetensors").read_bytes()
    addition = (copy, rslora, "--operator", "addition")
    for place, sentence in ((copy, "is one of the inputs"), (full, "something other"), (full / "notes.txt", "a file")):
        assert run(*addition, "--out", place) == 2
        assert sentence in capsys.readouterr().err
    assert (copy / "adapter_model.safetensors").read_bytes() == before
    assert run(*addition, "--out", out) == 0
    first = (out / "adapter_model.safetensors").read_bytes()
    # It fails while it writes: a number does not fit.
    assert run(*addition, "--weights", "1e9,1", "--dtype", "float16", "--out", out) == 2
    assert (out / "adapter_model.safetensors").read_bytes() == first
    (out / "scores.json").write_text("mine")
    assert run(copy, "--operator", "addition", "--out", out) == 2
    (out / "scores.json").unlink()
    assert run(copy, "--operator", "addition", "--out", out) == 0
    assert (out / "adapter_model.safetensors").read_bytes() != first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "full", "out"]


@pytest.mark.parametrize("how", [(), ("--fold", "--backbone")], ids=["adapter", "fold"])
def test_a_full_disk_leaves_nothing_half_written(adapters, backbone, tmp_path, capsys, how):
    arguments = [adapters["plain"][0], "--operator", "addition", *how, *([backbone] if how else [])]
    with small_files():
        assert run(*arguments, "--out", tmp_path / "out") == 2
    assert f"Cannot write {tmp_path / 'out'}: " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_adapters_saved_on_another_device_are_read(adapters, tmp_path, monkeypatch):
    """PEFT's older adapters are pickles that name the device they were saved on."""
    folder = edited(adapters["plain"][0], tmp_path / "bin")
    tensors = load_file(folder / "adapter_model.safetensors")
    (folder / "adapter_model.safetensors").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        torch.save(tensors, folder / "adapter_model.bin")
    assert_close(read_adapter(str(folder)).updates, adapters["plain"][1])


def test_ranks_of_modules_whose_names_end_alike_stay_apart(tmp_path):
    g = torch.Generator().manual_seed(0)
    updates = {
        name: LowRank(torch.randn(6, r, generator=g), torch.randn(r, 6, generator=g))
        for name, r in {"layers.0.q": 3, "enc.layers.0.q": 2, "x.q": 1, "y.q": 1}.items()
    }
    write_lora(updates, tmp_path, ranks="own")
    model = nn.Module()
    for name in updates:
        parent = model
        for part in name.split(".")[:-1]:
            parent.add_module(part, getattr(parent, part, nn.Module()))
            parent = getattr(parent, part)
        parent.add_module("q", nn.Linear(6, 6, bias=False))
    before = {name: model.get_submodule(name).weight.detach().clone() for name in updates}
    merged = PeftModel.from_pretrained(model, tmp_path).merge_and_unload()
    for name, update in updates.items():
        torch.testing.assert_close(merged.get_submodule(name).weight - before[name], update.dense())


def edited(folder: Path, out: Path, **config: object) -> Path:
    """A copy of an adapter folder with some configuration fields replaced."""
    out.mkdir()
    raw = json.loads((folder / "adapter_config.json").read_text())
    (out / "adapter_config.json").write_text(json.dumps(raw | config))
    save_file(load_file(folder / "adapter_model.safetensors"), out / "adapter_model.safetensors")
    return out


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"peft_type": "IA3"}, "is a IA3 adapter"),
        ({"bias": "all"}, 'bias="all"'),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"use_some_future_variant": True}, "use_some_future_variant=True"),
        ({"some_variant_config": {"a": 1}}, "some_variant_config="),
        ({"enable_lora": [True, False]}, "enable_lora="),
        ({"layer_replication": [[0, 1], [0, 2]]}, "layer_replication="),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights=pissa_niter_4"),
    ],
)
def test_what_is_not_understood_is_refused(config, sentence, adapters, tmp_path):
    folder = edited(adapters["plain"][0], tmp_path / "odd", **config)
    with pytest.raises(UserError, match=sentence):
        read_adapter(str(folder))


def test_the_command_answers_mistakes_with_one_sentence(adapters, backbone, tmp_path, capsys):
    plain, rslora = adapters["plain"][0], adapters["rslora"][0]
    other = edited(plain, tmp_path / "other", base_model_name_or_path="org/other")
    q, v = only(plain, tmp_path / "q", "q_proj"), only(plain, tmp_path / "v", "v_proj")
    pointer = edited(plain, tmp_path / "pointer")
    (pointer / "adapter_model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    torn = edited(plain, tmp_path / "torn")
    (torn / "adapter_model.safetensors").rename(torn / "adapter_model.bin")
    odd = edited(plain, tmp_path / "odd")
    tensors = load_file(plain / "adapter_model.safetensors")
    first = next(key for key in tensors if "lora_A" in key)
    save_file(tensors | {first: tensors[first][:1].contiguous()}, odd / "adapter_model.safetensors")
    cases = [
        ((q, v, "--operator", "addition"), "no adapted module in common"),
        ((plain, pointer, "--operator", "addition"), "type git lfs pull"),
        ((plain, torn, "--operator", "addition"), "adapter_model.bin cannot be read"),
        ((plain, odd, "--operator", "addition"), "which do not fit"),
        ((plain, rslora, "--operator", "addition", "--device", "cuda:99"), "--device cuda:99 is not there"),
        ((plain, "--operator", "addition", "--fold", "--rank", 2, "--backbone", backbone), "leave it out"),
        ((plain, other, "--operator", "addition"), "add --base"),
        ((plain, rslora, "--operator", "ties"), "give --rank R"),
        ((plain, rslora, "--operator", "dare", "--rank", 4), "--seed"),
        (
            (plain, rslora, "--operator", "tsvm", "--density", 0.2),
            "--operator tsvm has no option --density; it has --scale",
        ),
        ((plain, adapters["dora"][0], "--operator", "tsvm", "--backbone", backbone), "full-rank update"),
        ((plain, tmp_path / "absent", "--operator", "tsvm"), "is neither a folder nor"),
        ((plain, "--operator", "addition", "--fold"), "--backbone DIR"),
        ((plain, rslora, "--operator", "ties", "--scale", 2, "--calibration", "pico"), "whatever --scale is"),
    ]
    for arguments, sentence in cases:
        assert run(*arguments, "--out", tmp_path / "out") == 2
        printed = capsys.readouterr().err
        assert sentence in printed
        assert printed.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert run(plain, other, "--operator", "addition", "--base", "org/one", "--out", tmp_path / "out") == 0


def stored(folder: Path, name: str = "adapter_model.safetensors") -> set[torch.dtype]:
    return {tensor.dtype for tensor in load_file(folder / name).values()}


def cast(folder: Path, out: Path, dtype: torch.dtype) -> Path:
    """A copy of an adapter folder in another dtype."""
    edited(folder, out)
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({key: tensor.to(dtype) for key, tensor in tensors.items()}, out / "adapter_model.safetensors")
    return out


def test_a_merged_adapter_has_the_dtype_of_its_inputs_or_the_one_asked_for(adapters, tmp_path, capsys):
    plain, rslora = (adapters[kind][0] for kind in ("plain", "rslora"))
    half = [cast(folder, tmp_path / f"half-{i}", torch.bfloat16) for i, folder in enumerate((plain, rslora))]
    other = cast(rslora, tmp_path / "other", torch.float16)
    old = cast(plain, tmp_path / "old", torch.bfloat16)
    torch.save(load_file(old / "adapter_model.safetensors"), old / "adapter_model.bin")
    (old / "adapter_model.safetensors").unlink()
    cases = [
        (half, (), torch.bfloat16),
        ((half[0], old), (), torch.bfloat16),
        ((half[0], other), (), torch.float32),
        ((half[0], rslora), (), torch.float32),
        (half, ("--dtype", "float32"), torch.float32),
        ((plain, rslora), ("--dtype", "float16"), torch.float16),
    ]
    for folders, words, dtype in cases:
        assert run(*folders, "--operator", "addition", *words, "--out", tmp_path / "out") == 0
        assert stored(tmp_path / "out") == {dtype}
        line, report = capsys.readouterr().out, json.loads((tmp_path / "out" / "merge_report.json").read_text())
        assert f"torch.{report['dtype']}" == str(dtype)
        assert ("rounds by" in line) == ("rounding_error" in report) == (dtype != torch.float32)
        # The sum is formed in fp32 and rounded once, at the end, by as much as is reported.
        parts = [read_adapter(str(folder)).updates for folder in folders]
        merged = read_adapter(str(tmp_path / "out")).updates
        exact = {n: sum(part[n].dense().double() for part in parts) for n in merged}
        lost = sum(torch.dist(merged[n].dense().double(), exact[n]) ** 2 for n in merged) ** 0.5
        size = sum(delta.norm() ** 2 for delta in exact.values()) ** 0.5
        assert float(lost / size) == pytest.approx(report.get("rounding_error", 0.0), abs=1e-6)


def test_a_fold_keeps_the_stored_dtype_or_has_the_one_asked_for(adapters, backbone, tmp_path):
    folder, delta = adapters["plain"]
    half = tmp_path / "half"
    load(backbone).to(torch.bfloat16).save_pretrained(half, max_shard_size="30KB")
    words = (folder, "--operator", "addition", "--fold", "--backbone", half)
    assert run(*words, "--out", tmp_path / "kept") == 0
    assert run(*words, "--dtype", "float32", "--out", tmp_path / "wide") == 0
    kept, wide, before = (
        AutoModelForCausalLM.from_pretrained(f, dtype="auto") for f in (tmp_path / "kept", tmp_path / "wide", half)
    )
    assert (kept.dtype, wide.dtype) == (torch.bfloat16, torch.float32)
    for name, weight in before.state_dict().items():
        change = delta.get(name.removesuffix(".weight"), 0)
        torch.testing.assert_close(wide.state_dict()[name], weight.float() + change, rtol=0, atol=1e-6)
        torch.testing.assert_close(kept.state_dict()[name], (weight.float() + change).bfloat16())
    index = json.loads((tmp_path / "wide" / "model.safetensors.index.json").read_text())
    files = set(index["weight_map"].values())
    assert len(files) > 1
    assert index["metadata"]["total_size"] == sum(
        t.nbytes for file in files for t in load_file(tmp_path / "wide" / file).values()
    )


@pytest.mark.parametrize("fold", [False, True])
def test_numbers_too_large_for_the_dtype_are_refused_by_name(fold, adapters, backbone, tmp_path, capsys):
    how = ("--fold", "--backbone", backbone) if fold else ()
    words = ("--operator", "task_arithmetic", "--weights", "1e9", "--dtype", "float16", *how)
    assert run(adapters["plain"][0], *words, "--out", tmp_path / "out") == 2
    printed = capsys.readouterr().err
    assert "model.layers.0.self_attn.q_proj" in printed
    assert "too large for float16; try bfloat16 or float32" in printed
    assert not (tmp_path / "out").exists()
