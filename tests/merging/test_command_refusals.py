"""What the command refuses, each in one sentence with the words that were typed."""

from __future__ import annotations

import pytest
from safetensors.torch import load_file, save_file

from tests.merging.folders import edited, only, run


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
        (
            ("knots", "--rule", "addition", "--density", "0.01"),
            "--density 0.01 is an option of --rule ties, not of --rule",
        ),
        (
            ("core_space", "--rule", "tsvm", "--threshold", "matrix"),
            "--threshold matrix is an option of --rule ties, not",
        ),
        (("addition", "--without", "v_proj,q_proj"), "--without q_proj,v_proj leaves no update of"),
    ],
)
def test_numbers_without_a_sense_are_refused_as_they_are_typed(words, sentence, adapters, tmp_path, capsys):
    assert run(adapters["plain"][0], "--operator", *words, "--out", tmp_path / "out") == 2
    printed = capsys.readouterr().err
    assert sentence in printed
    assert printed.count("\n") == 1
    assert "merge." not in printed
    assert not (tmp_path / "out").exists()


def test_options_are_checked_before_anything_is_read(tmp_path, capsys):
    assert run(tmp_path / "absent", "--operator", "della", "--seed", 0, "--out", tmp_path / "out") == 2
    assert "--operator della gives full-rank updates; give --rank R" in capsys.readouterr().err
    assert run(tmp_path / "absent", "--operator", "ties", "--density", "0", "--out", tmp_path / "out") == 2
    assert "--density 0 must be above 0" in capsys.readouterr().err


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
