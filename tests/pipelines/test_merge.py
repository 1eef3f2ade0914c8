"""What a merge run asks of its adapters, before anything is computed."""

from __future__ import annotations

import pytest

from hiplora.compose import compose
from hiplora.errors import UserError
from hiplora.pipelines.base import Config

MERGE = ["pipeline=merge", "seed=42"]


def ids(config: Config) -> list[str]:
    return [wanted.stage.id for wanted in config.stages()]  # type: ignore[union-attr]


def test_members_are_the_runs_of_the_single_pipeline():
    """With the user's settings of the task, too: else Before and After would be of different questions."""
    for words in ([], ["task.target=solution"], ["task.template=plain"]):
        asked = [wanted.stage for wanted in compose([*MERGE, "method=lora", *words]).stages() if wanted.shared]
        assert asked
        for stage in asked:
            train = stage.of.train
            own = words if train.task.name == "gsm8k" or "task.target=solution" not in words else []
            single = compose(["method=lora", f"task={train.task.name}", f"seed={train.seed}", *own])
            assert ids(single)[0::2] == [train.id, stage.id]


def test_the_group_task_does_not_tell_merges_apart():
    first, *others = (ids(compose([*MERGE, f"task={task}"])) for task in ("gsm8k", "mmlu", "scienceqa"))
    assert others == [first, first]
    assert ids(compose([*MERGE, "task.target=solution"])) != first


def test_members_are_in_every_instance() -> None:
    words = ["pipeline.members=[code]", "merging.sizes=[2]", "merging.instances=20", "merging.training_seeds=[42]"]
    merges = [w.stage.of.members for w in compose([*MERGE, *words]).stages() if w.stage.of.role == "merged"]  # type: ignore[union-attr]
    assert [[task for task, _ in members] for members in merges] == [
        ["code", other] for other in ("gsm8k", "mmlu", "scienceqa")
    ]


def test_full_rank_updates_are_refused_before_any_training():
    merge = compose([*MERGE, "method=dora", "merge=tsvm", "evaluation.code_execution=off"]).stages()[-1].stage
    with pytest.raises(UserError, match="merge=tsvm works on low-rank factors, but method=dora"):
        merge.check()
    compose([*MERGE, "method=dora", "merge=ties", "evaluation.code_execution=off"]).stages()[-1].stage.check()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("merging.sizes=[5]", "merging.sizes.0=5 must be at most 4"),
        ("merging.sizes=[1]", "merging.sizes.0=1 must be at least 2"),
        ("merging.sizes=[]", r"merging.sizes=\[\] must have at least 1"),
        ("merging.sizes=[2,2]", "names a value twice"),
        ("merging.training_seeds=[-1]", "merging.training_seeds.0=-1 must be at least 0"),
        ("pipeline.members=[cooking]", "pipeline.members names cooking; choose among mmlu"),
        ("pipeline.members=[code,code]", "pipeline.members=.* names a value twice"),
        ("pipeline.members=[code,mmlu,gsm8k]", "pipeline.members has 3 tasks"),
        ("pipeline.members=[custom]", "type task.file=F or task.dataset=owner/name"),
        ("merging.instances=0", "merging.instances=0 must be at least 1"),
    ],
)
def test_what_cannot_be_drawn_is_refused(words: str, told: str):
    with pytest.raises(UserError, match=told):
        compose([*MERGE, words])


def test_instances_of_two_sampling_seeds_may_be_one_stage():
    """What identifies a merge is what is merged, not by which draw it was found."""
    small = ["merging.training_seeds=[42]", "merging.sizes=[4]", "method=lora"]
    first, other = (ids(compose(["pipeline=merge", f"seed={seed}", *small])) for seed in (42, 100))
    assert first == other
