"""What asking tasks of lm-eval makes of a run's stages, what identifies them, and what is refused in one sentence."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hiplora.compose import compose
from hiplora.errors import UserError
from hiplora.evaluation.definitions import built_in, definitions
from hiplora.evaluation.harness import check
from hiplora.evaluation.lm_tasks import LmScore, LmTasks, check_counted, counted
from hiplora.evaluation.retention import retention
from hiplora.report.scores import lm_eval_table
from hiplora.stages.base import Stage
from hiplora.stages.record import result_digest
from hiplora.stages.results import Scores
from tests.lm_tasks import toy_tasks

OFF = "evaluation.code_execution=off"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return toy_tasks(tmp_path / "tasks")


def stages(*words: str) -> list[Stage]:
    return [wanted.stage for wanted in compose([OFF, *words]).stages()]  # type: ignore[union-attr]


def identified(folder: Path, *names: str) -> dict[str, str]:
    return LmTasks(tasks=names, include_path=str(folder)).reads()


def test_nothing_else_has_another_identity(folder: Path) -> None:
    train, base, score = stages()
    asked = stages("evaluation.tasks=[toy_choice]", f"evaluation.include_path={folder}")
    assert asked[0].id == train.id
    assert [stage.needs()[-1].id for stage in asked[1:]] == [base.id, score.id]
    assert not {stage.id for stage in asked[1:]} & {base.id, score.id}
    assert [stage.id for stage in stages("evaluation.retain=[mmlu]")] == [train.id, base.id, score.id]
    both = ["evaluation.tasks=[toy_choice,arc_easy]", "evaluation.tasks=[arc_easy,toy_choice]"]
    one, other = (stages(words, f"evaluation.include_path={folder}")[-1] for words in both)
    assert one.id == other.id
    assert one.described()["reads"].keys() >= {"lm_eval/arc_easy", "lm_eval/toy_choice", "lm_eval/toy_choice (test)"}


def test_a_task_is_what_its_definition_and_its_files_say(folder: Path, tmp_path: Path) -> None:
    before = identified(folder, "toy_written")
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    for path in moved.glob("*.yaml"):
        path.write_text(path.read_text().replace(str(folder), str(moved)) + "# a comment\n")
    assert identified(moved, "toy_written") == before, "neither where it lies nor a comment"
    assert set(identified(folder, "toys")) == {*before, "lm_eval/toy_choice", "lm_eval/toy_choice (test)"}
    assert set(identified(folder, "toy_group")) > {"lm_eval/toy_group", "lm_eval/toy_choice", "lm_eval/toy_last (test)"}
    changes = {
        "rows.jsonl": ("brown", "red", {"lm_eval/toy_written (test)"}),
        "toy_scores.py": ("100", "10", {"lm_eval/toy_written"}),
        "toy_written.yaml": ("max_gen_toks: 12", "max_gen_toks: 13", {"lm_eval/toy_written"}),
    }
    for name, (old, new, moving) in changes.items():
        path = moved / name
        kept = path.read_text()
        path.write_text(kept.replace(old, new))
        after = identified(moved, "toy_written")
        assert {key for key in before if after[key] != before[key]} == moving
        path.write_text(kept)


def test_functions_of_an_included_definition_lie_beside_it(folder: Path) -> None:
    common = folder / "common"
    common.mkdir()
    scores = (folder / "toy_scores.py").rename(common / "toy_scores.py")
    yaml = folder / "toy_written.yaml"
    name, _, rest = yaml.read_text().partition("\n")
    (common / "base.yaml").write_text(rest)
    yaml.write_text(f"{name}\ninclude: common/base.yaml\n")
    before = identified(folder, "toy_written")
    scores.write_text(scores.read_text().replace("100", "10"))
    after = identified(folder, "toy_written")
    assert {key for key in before if after[key] != before[key]} == {"lm_eval/toy_written"}


def test_members_of_a_group_inside_a_group_count(folder: Path) -> None:
    inner = "{group: inner, task: [toy_choice, {group: innermost, task: [{task: toy_last, num_fewshot: 1}]}]}"
    (folder / "outer.yaml").write_text(f"group: outer\ntask:\n  - {inner}\n")
    before = identified(folder, "outer")
    rows = folder / "rows.jsonl"
    rows.write_text(rows.read_text().replace("brown", "red"))
    after = identified(folder, "outer")
    moving = {key for key in before if after[key] != before[key]}
    assert moving == {"lm_eval/toy_choice (test)", "lm_eval/toy_last (test)"}
    check(LmTasks(tasks=("outer",), include_path=str(folder)), positions=512)


def test_a_definition_that_replaces_a_member_of_lm_evals_own_group_counts(folder: Path, tmp_path: Path) -> None:
    before = identified(folder, "mmlu")
    assert [*before] == ["lm_eval/mmlu"]
    more = tmp_path / "more"
    shutil.copytree(folder, more)
    own = (folder / "toy_choice.yaml").read_text().replace("task: toy_choice", "task: mmlu_anatomy")
    (more / "anatomy.yaml").write_text(own)
    after = identified(more, "mmlu")
    assert after.items() > before.items()
    assert after.keys() - before.keys() == {"lm_eval/mmlu_anatomy", "lm_eval/mmlu_anatomy (test)"}
    assert identified(more, "arc_easy", "toy_group").keys() & after.keys() == set()


def test_files_of_a_repository_on_the_hub_are_not_looked_for_here(folder: Path) -> None:
    yaml = folder / "toy_choice.yaml"
    yaml.write_text(yaml.read_text().replace("dataset_path: json", "dataset_path: owner/name"))
    before = identified(folder, "toy_choice")
    assert [*before] == ["lm_eval/toy_choice"]
    yaml.write_text(yaml.read_text().replace("rows.jsonl", "other.jsonl"))
    (definition,) = definitions("toy_choice", folder)
    assert definition.absent() is None
    assert identified(folder, "toy_choice") != before


def test_mistakes_are_refused_in_one_sentence(folder: Path) -> None:
    here = f"evaluation.include_path={folder}"
    cases = {
        ("evaluation.tasks=arc_easy",): r"must be a list, e.g. evaluation.tasks=\[arc_easy\]",
        ("evaluation.tasks=[a,a]",): "names a twice",
        (here,): "holds tasks; name some",
        ("evaluation.tasks=[a]", "evaluation.include_path=nowhere"): "nowhere is not a folder",
        ("evaluation.tasks=[a]", "pipeline=probe"): "evaluation.tasks means nothing to pipeline=probe",
        ("evaluation.retain=[mmlu]", "pipeline=backbone"): "evaluation.retain means nothing to pipeline=backbone",
        ("evaluation.tasks=[a]", "evaluation.splits=validation"): "type it with evaluation.splits=test",
        ("evaluation.tasks=[a]", "evaluation.likelihood_only=true"): "evaluation.likelihood_only=false",
        ("evaluation.retain=[arc_easy]",): "arc_easy, which is not scored; choose among mmlu.* or add it to",
        ("evaluation.retain=[mmlu,mmlu]",): "names mmlu twice",
        ("evaluation.retain=[mmlu/acc]",): "mmlu counts by its headline score",
    }
    for words, sentence in cases.items():
        with pytest.raises(UserError, match=sentence):
            compose([OFF, *words])


def refused(folder: Path | None, *names: str, retain: tuple[str, ...] = ()) -> str:
    with pytest.raises(UserError) as caught:
        check(LmTasks(tasks=names, include_path=folder and str(folder), retain=retain), positions=512)
    return str(caught.value)


def test_a_task_that_could_not_be_scored_is_refused_before_anything_is_computed(folder: Path, monkeypatch) -> None:
    check(LmTasks(tasks=("toys", "toy_last"), include_path=str(folder), retain=("toy_last/acc",)), positions=512)
    assert "toy_choise, which is neither below evaluation.include_path nor" in (said := refused(folder, "toy_choise"))
    assert "similar names are toy_choice" in said
    assert "similar names are hellaswag" in refused(None, "helaswag")
    assert "lm-eval could not load arc_easy" in (said := refused(None, "arc_easy"))
    assert "It reads allenai/ai2_arc: if that is on the Hub, connect to it once." in said
    assert "without a sandbox" in refused(None, "humaneval")
    check(LmTasks(tasks=("toy_written",), include_path=str(folder), retain=("toy_written/length/word",)), positions=512)
    check(LmTasks(tasks=("toys",), include_path=str(folder), retain=("toy_choice/acc_norm",)), positions=512)
    assert "has no metric length/whole2; type toy_written/length/whole" in refused(
        folder, "toy_written", retain=("toy_written/length/whole2",)
    )
    assert "type toy_last/acc" in refused(folder, "toy_last", retain=("toy_last",))
    assert "toys has no score of its own" in refused(folder, "toys", retain=("toys",))
    assert "is better when lower" in refused(folder, "toy_text", retain=("toy_text",))
    assert "toy_choice is in two of the names" in refused(folder, "toy_choice", "toys")
    with pytest.raises(UserError, match="toy_text scores a text from its first token on"):
        check(LmTasks(tasks=("toy_text",), include_path=str(folder)), positions=512, begins=False)
    check(LmTasks(tasks=("toy_choice", "toy_last"), include_path=str(folder)), positions=512, begins=False)
    yaml = folder / "toy_written.yaml"
    text = yaml.read_text()
    yaml.write_text(text.replace("do_sample: false", "num_beams: 4"))
    assert "num_beams=4 in generation_kwargs" in refused(folder, "toy_written")
    yaml.write_text(text.replace("toks: 12", "toks: 512"))
    assert "leaves no position for a prompt" in refused(folder, "toy_written")
    yaml.write_text(text.replace("rows.jsonl", "absent.jsonl"))
    assert "names the data" in refused(folder, "toy_written")


def test_a_group_may_define_its_tasks_itself_and_lists_none_that_is_not_defined(folder: Path) -> None:
    inner = (folder / "toy_last.yaml").read_text().replace("toy_last", "inner").strip().replace("\n", "\n    ")
    (folder / "inline.yaml").write_text(f"group: inline\ntask:\n  - {inner}\n")
    (folder / "lost.yaml").write_text("group: lost\ntask: [toy_last, gone]\n")
    asked = LmTasks(tasks=("inline",), include_path=str(folder))
    check(asked, positions=512)
    before = asked.reads()
    assert before.keys() == {"lm_eval/inline", "lm_eval/inner", "lm_eval/inner (test)"}
    (folder / "rows.jsonl").write_text((folder / "rows.jsonl").read_text().replace("brown", "red"))
    assert {key for key, digest in asked.reads().items() if digest != before[key]} == {"lm_eval/inner (test)"}
    assert "the group lost lists gone, which no YAML defines" in refused(folder, "lost")


def test_every_task_and_group_of_lm_eval_is_found_without_loading_it() -> None:
    code = (
        "import sys\nfrom hiplora.evaluation.lm_tasks import LmTasks\n"
        "found = LmTasks(tasks=('mmlu', 'ai2_arc', 'hellaswag', 'mmlu_anatomy')).defined()\n"
        "print({name: len(each) for name, each in found.items()}, 'lm_eval' in sys.modules, 'torch' in sys.modules)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "{'mmlu': 62, 'ai2_arc': 2, 'hellaswag': 1, 'mmlu_anatomy': 1} False False"
    assert built_in().is_dir()


def scores(acc: float, norm: float, perplexity: float) -> Scores:
    benchmarks = {name: {"acc": acc, "pass@1": acc, "nll": 1.0} for name in ("mmlu", "scienceqa", "gsm8k", "code")}
    task = LmScore(
        metrics={"acc": acc, "acc_norm": norm, "perplexity": perplexity},
        stderr={}, better={"acc": True, "acc_norm": True, "perplexity": False},
        n=4, shots=0, version="1", group=None,
    )  # fmt: skip
    return Scores(benchmarks={**benchmarks, "text": {"nll": 1.0}}, sandbox="off", seconds=1, lm_eval={"own": task})


def test_retain_counts_what_is_named() -> None:
    base, adapted = scores(0.5, 0.75, 9.0), scores(0.25, 0.25, 11.0)

    def points(*retain: str) -> float | None:
        counts = counted(retain, ["own"])
        return retention(base.every, adapted.every, trained_on="gsm8k", counts=counts)["retain_pp"]

    assert points() == 25
    assert points("own") == 25
    assert points("own/acc_norm") == 50
    assert points("mmlu", "own/acc_norm", "gsm8k") == 37.5, "what it was trained on never counts"
    assert points("own/perplexity") is None
    (each,) = counted(["own/perplexity"], ["own"])
    task = adapted.lm_eval["own"]
    with pytest.raises(UserError, match=r"counts by perplexity, which is better when lower.*type own/acc"):
        check_counted(task.metrics, task.better, each)


def test_the_table_shows_what_was_asked_for_with_its_interval() -> None:
    base, adapted = scores(0.5, 0.75, 9.0), scores(0.25, 0.25, 20000.0)
    (task,) = adapted.lm_eval.values()
    inner = task.model_copy(update={"group": "own"})
    adapted = adapted.model_copy(
        update={
            "lm_eval": {"own": task.model_copy(update={"stderr": {"acc": 0.1, "perplexity": 612345.0}}), "inner": inner}
        }
    )
    assert lm_eval_table({"base": base, "adapted": adapted}).splitlines() == [
        "lm-eval       metric                         n              base           adapted",
        "own           acc                            4             0.500      0.250 ±0.196",
        "own           acc_norm                       4             0.750             0.250",
        "own           perplexity                     4             9.000    2e+04 ±1.2e+06",
    ]
    assert lm_eval_table({"base": base.model_copy(update={"lm_eval": {}})}) == ""


def test_a_record_without_tasks_is_read_and_digested_as_before() -> None:
    """The result is one from before tasks could be asked for, the digest the one that it had then."""
    result = {"benchmarks": {"gsm8k": {"acc": 0.5}, "text": {"nll": 3.0}}, "sandbox": "off", "seconds": 1.0}
    samples = [{"id": "test/0", "acc": 1.0}]
    plain = Scores.model_validate(result)
    assert result_digest(plain, samples) == "224d379c67a0"
    asked = [plain.model_copy(update={"lm_eval": scores(acc, 0.5, 9.0).lm_eval}) for acc in (0.5, 0.25)]
    digests = {result_digest(each, samples) for each in (plain, *asked)}
    assert len(digests) == 3, "a task's scores are among what is digested"
