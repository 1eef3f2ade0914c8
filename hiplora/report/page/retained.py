"""Retain over the benchmarks and lm-eval tasks that ``--retain`` names, instead of the four benchmarks."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from hiplora.evaluation.lm_tasks import Counted, check_counted, counted
from hiplora.evaluation.retention import retention
from hiplora.report.page.bare import Bare
from hiplora.report.page.groups import Run
from hiplora.stages.record import Record
from hiplora.stages.results import Scores
from hiplora.tasks import ORDER

OPTION = "--retain"


def named(retain: Sequence[str], records: Collection[Record]) -> list[Counted]:
    """What ``retain`` names, among all that these records hold.

    Raises:
        UserError: no record was scored on it, or its metric is better when lower or is not a fraction of 1.
    """
    tasks = [record.result.lm_eval for record in records if isinstance(record.result, Scores)]
    found = counted(retain, dict.fromkeys(name for each in tasks for name in each), option=OPTION)
    for of in found:
        for each in tasks:
            if not of.ours and of.name in each:
                check_counted(each[of.name].metrics, each[of.name].better, of, option=OPTION)
    return found


def retained(run: Run, bare: Bare, counts: Sequence[Counted]) -> float | None:
    """Retain in points over what ``counts`` names, under the evaluation of the run's best record.

    None if the run or its backbone was not scored on all of it under that evaluation.
    """
    tasks = [each.name for each in counts if not each.ours]
    pairs = ((bare.of(record), record) for record in run.scored_on(tasks))
    base, record = next(((base, record) for base, record in pairs if base is not None), (None, None))
    if record is None or base is None:
        return None
    assert isinstance(record.result, Scores)
    assert isinstance(base.result, Scores)
    before, after = base.result.every, record.result.every
    if not {*ORDER, "text"} <= before.keys() & after.keys():
        return None
    return retention(before, after, trained_on=run.tasks, counts=counts)["retain_pp"]
