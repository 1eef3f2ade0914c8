"""What a merge run asks of its adapters, before anything is computed."""

from __future__ import annotations

import pytest

from hiplora.compose import compose
from hiplora.errors import UserError
from hiplora.pipelines import pipeline
from hiplora.scheduler import record_id

MERGE = ["pipeline=merge", "seed=42"]


def test_members_are_the_runs_of_the_single_pipeline():
    """With the user's settings of the task, too: else Before and After would be of different questions."""
    for words in ([], ["task.target=solution"], ["task.template=plain"]):
        needs = pipeline("merge").requires(compose([*MERGE, "method=lora", *words]))
        for need in needs:
            own = words if need.task.name == "gsm8k" or "task.target=solution" not in words else []
            single = compose(["method=lora", f"task={need.task.name}", f"seed={need.seed}", *own])
            assert record_id(need) == record_id(single)


def test_the_group_task_does_not_tell_merges_apart():
    first, *others = (record_id(compose([*MERGE, f"task={task}"])) for task in ("gsm8k", "mmlu", "scienceqa"))
    assert others == [first, first]
    assert record_id(compose([*MERGE, "task=mmlu", "task.target=solution"])) != first


def test_full_rank_updates_are_refused_before_any_training():
    with pytest.raises(UserError, match="merge=tsvm works on low-rank factors, but method=dora"):
        pipeline("merge").check(compose([*MERGE, "method=dora", "merge=tsvm", "evaluation.code_execution=off"]))
    pipeline("merge").check(compose([*MERGE, "method=dora", "merge=ties", "evaluation.code_execution=off"]))
