"""The text that a run prints when it is done: its scores, what it forgot, what it reused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hiplora.evaluation.continual import figures
from hiplora.evaluation.edit_measures import ALL
from hiplora.report.edits import SHOWN, alone, pairs
from hiplora.report.edits import figures as figures_of_edits
from hiplora.report.elsewhere import elsewhere
from hiplora.report.plan import aligned
from hiplora.report.result_tables import result_table
from hiplora.report.scores import forgotten, lm_eval_table, tables
from hiplora.report.scores import number as _number
from hiplora.stages.results import Adapter, Edited, Metrics, Result, Scores
from hiplora.stages.score import Score
from hiplora.tasks import TASKS, primary

if TYPE_CHECKING:
    from hiplora.stages.make import Engine, Outcome

WIDTH = 120  # characters; a wider table has its measures as rows


def describe(outcomes: Sequence[Outcome], engine: Engine, *, retain: Sequence[str] = ()) -> str:
    """The text of one finished run; ``retain`` names what Retain counts, the four benchmarks if it is empty."""
    found = elsewhere(outcomes, retain=retain)
    parts = found if found else [*_trained_here(outcomes, retain), *_folders(outcomes, engine)]
    if engine.reused:
        advice = "" if engine.force else " force=true redoes the run."  # else another process has just redone it
        parts.append("Reused: " + "; ".join(engine.reused) + "." + advice)
    shown = outcomes if found else _measured(outcomes)
    named = bool(found) or len(shown) > 1
    parts += [_place(each, beside=not named and _beside(outcomes), named=named) for each in shown]
    return "\n".join(part for part in parts if part)


def _measured(outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
    """The outcomes that the text is about: merges, the stages of a line, batches of edits; else the last alone."""
    merged = [outcome for outcome in outcomes if _role(outcome) == "merged"]
    edited = [outcome for outcome in outcomes if isinstance(outcome.record.result, Edited)]
    return merged or _line_of(outcomes) or edited[1:] or outcomes[-1:]  # the first of the edited is the backbone


def _trained_here(outcomes: Sequence[Outcome], retain: Sequence[str]) -> list[str]:
    """The parts of the text for adapters trained here: scores, trainings, what they forgot."""
    scored = {_role(outcome): outcome for outcome in outcomes if isinstance(outcome.stage, Score)}
    merged = [outcome for outcome in outcomes if _role(outcome) == "merged"]
    edited = [outcome for outcome in outcomes if isinstance(outcome.record.result, Edited)]
    parts = [_merges(merged, outcomes)] if merged else [_scores(scored.get("backbone"), scored.get("adapter"))]
    line = _line_of(outcomes)
    if line:
        stages: dict[str, Any] = {f"after {number}": each.record.result for number, each in enumerate(line, start=1)}
        theirs = lm_eval_table({"base": scored["backbone"].record.result, **stages})  # type: ignore[dict-item]
        parts = [_matrix([scored["backbone"], *line]), theirs]
    if edited:
        parts = [_edits(edited)]
    elif not merged and (found := [table for each in outcomes if (table := _table(each.record.result))]):
        parts = [*found, *parts]
    parts += [_training(outcome.record.result) for outcome in outcomes if isinstance(outcome.record.result, Adapter)]
    if not merged and not line and {"backbone", "adapter"} <= scored.keys():
        parts.append(_retain(scored["backbone"], scored["adapter"], retain))
    return parts


def _folders(outcomes: Sequence[Outcome], engine: Engine) -> list[str]:
    """A line with each adapter's folder, with its name if there are several; none for a folder that is absent."""
    trained = [outcome.record for outcome in outcomes if isinstance(outcome.record.result, Adapter)]
    here, lines = Path.cwd(), []
    for record in trained:
        if (folder := engine.store.artefact(record)) is not None:
            shown = folder.relative_to(here) if folder.is_relative_to(here) else folder
            lines.append(f"Adapter{f' {record.name}' if len(trained) > 1 else ''}: {shown}")
    return lines


def tally(engine: Engine) -> str:
    """A sentence with the number of stages that a run made and reused."""
    return f"Made {len(engine.made)} stages, reused {len(engine.reused)}."


def _role(outcome: Outcome) -> str | None:
    return outcome.stage.of.role if isinstance(outcome.stage, Score) else None


def _scale(outcome: Outcome) -> float:
    """The factor on the update that was scored."""
    return getattr(outcome.stage.of, "scale", 1.0)  # type: ignore[attr-defined]


def _beside(outcomes: Sequence[Outcome]) -> bool:
    """Whether the scores of the last outcome's tracked record, if it is another, are a column beside its own."""
    return _role(outcomes[-1]) == "adapter" and not _line_of(outcomes)


def _place(outcome: Outcome, *, beside: bool, named: bool = False) -> str:
    record = outcome.record
    words = f"Record: {record.kind} {record.id} ({record.where})" + (f" of {record.name}" if named else "")
    if outcome.recorded is None:
        return words
    if beside:
        words += ", of an adapter that was restored here; the tracked record stays as it is, and its scores are shown"
        return f"{words} as recorded."
    return f"{words}, with another result than the tracked record, which stays as it is and is not shown here."


def _scores(base: Outcome | None, adapted: Outcome | None) -> str:
    """Every score before and after, and those of the tracked record if this run's record differs from it."""
    columns: dict[str, Any] = {}
    if base is not None:
        columns["base"] = base.record.result
    if adapted is not None:
        name = "adapted" if _scale(adapted) == 1 else f"{_scale(adapted):g} ΔW"
        columns[name] = adapted.record.result
        if adapted.recorded is not None:
            columns["recorded"] = adapted.recorded.result
    return tables(columns)


def _merges(merged: Sequence[Outcome], outcomes: Sequence[Outcome]) -> str:
    """Each task's headline and NLL, alone and in the merged model."""
    alone = {
        outcome.stage.of.train.id: outcome.record.result.benchmarks  # type: ignore[attr-defined]
        for outcome in outcomes
        if _role(outcome) == "adapter"
    }
    scales = merged[0].stage.of.scales  # type: ignore[attr-defined]
    title = f"merged adapters{f', scaled by {scales[0]:g}' if scales else ''}"
    tasks = {task for outcome in merged for task, _ in outcome.stage.of.members}  # type: ignore[attr-defined]
    headlines = {task: _headline(task, scores[task]) for scores in alone.values() for task in tasks & scores.keys()}
    scored = any(metric != "nll" for metric in headlines.values())
    heads = ["before", "after"] if scored else []
    lines = [
        f"{title:<58}{'benchmark':<14}{'n':>5}" + "".join(f"{head:>12}" for head in (*heads, "NLL before", "NLL after"))
    ]
    for outcome in merged:
        source: Any = outcome.stage.of  # type: ignore[attr-defined]
        who = " + ".join(f"{task}/{seed}" for task, seed in source.members)
        after: Any = outcome.record.result
        for train, (task, _) in zip(source.adapters, source.members, strict=True):
            pair = (alone[train.id][task], after.benchmarks[task])
            own = None if headlines[task] == "nll" else headlines[task]  # shown in the columns of the NLL
            values = [scores.get(metric or "") for metric in ([own, "nll"] if scored else ["nll"]) for scores in pair]
            items = _number(pair[1].get("n"), ".0f")
            lines.append(f"{who:<58}{task:<14}{items:>5}" + "".join(f"{_number(value):>12}" for value in values))
            who = ""
    return "\n".join(lines)


def _table(result: Result) -> str:
    """The table of a frontier, drift, probe or comparison of costs; "" for scores and trainings."""
    if (found := result_table(result)) is None:
        return ""
    lines = [["", *found[0]], *([row, *cells] for row, cells in found[1])]
    wide = len(aligned(lines)[0]) > WIDTH
    return "\n".join(aligned([list(line) for line in zip(*lines, strict=True)] if wide else lines))


def _headline(benchmark: str, scores: Metrics) -> str:
    """The metric that one number stands for: the headline score, or the NLL if only likelihoods were measured."""
    return primary(benchmark) if scores[primary(benchmark)] is not None else "nll"


def _line_of(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The scores of adapters each trained on from the one before; empty unless there are several, all of one line."""
    scored: list[Any] = [outcome for outcome in outcomes if _role(outcome) == "adapter"]
    trains = [outcome.stage.of.train.id for outcome in scored]
    whole = len(trains) > 1 and [train.id for train in scored[-1].stage.of.train.line()] == trains
    return scored if whole else []


def _matrix(line: Sequence[Outcome]) -> str:
    """Each benchmark's headline after every stage of a line of trainings, and the measures of the line."""
    stages: list[Any] = [outcome.record.result.benchmarks for outcome in line]  # type: ignore[attr-defined]
    tasks = [outcome.stage.of.train.task.name for outcome in line[1:]]  # type: ignore[attr-defined]
    columns = {name: _headline(name, scores) for name, scores in stages[0].items() if name in TASKS}
    titles = [f"{name} {metric}" for name, metric in columns.items()]
    counts = "".join(f"{_number(stages[0][name].get('n'), '.0f'):>16}" for name in columns)
    lines = [f"{'stage':<14}" + "".join(f"{title:>16}" for title in titles) + f"{'text nll':>12}", f"{'n':<14}{counts}"]
    for number, (task, scores) in enumerate(zip(["backbone", *tasks], stages, strict=True)):
        row = "".join(f"{_number(scores[name][metric]):>16}" for name, metric in columns.items())
        lines.append(f"{f'{number} {task}':<14}{row}{_number(scores['text']['nll']):>12}")
    found = {name: None if math.isnan(value) else value for name, value in figures(stages, tasks).items()}
    lines.append(
        f"AvgAcc {_number(found['avg_acc'], '.2f')} %, Forgetting {_number(found['forgetting'], '+.2f')} pp, "
        f"BWT {_number(found['bwt'], '+.2f')} pp, FWT {_number(found['fwt'], '+.2f')} pp; "
        f"AvgNLL {_number(found['avg_nll'])}, Forgetting-NLL {_number(found['forgetting_nll'], '+.3f')}, "
        f"general text {_number(found['text_rise'], '+.3f')} nats per token"
    )
    return "\n".join(lines)


def _edits(edited: Sequence[Outcome]) -> str:
    """The measures of all edits and by category, beside those of the bare backbone."""
    base, *after = (outcome.record.result for outcome in edited)
    before: Any = figures_of_edits(alone(base))  # type: ignore[arg-type]
    found: Any = figures_of_edits(pairs(base, after))  # type: ignore[arg-type]
    items = sum(len(batch.outcomes["generated"]) for batch in base.batches)  # type: ignore[attr-defined]
    several = f" in {len(after)} batches" if len(after) > 1 else ""
    lines = [f"{f'{items} edits{several}':<50}{'backbone':>12}" + "".join(f"{group:>12}" for group in found)]
    for measure, words in SHOWN.items():
        numbers = [before[ALL].get(measure), *(values.get(measure) for values in found.values())]
        lines.append(f"{words:<50}" + "".join(f"{_number(number, '.2f'):>12}" for number in numbers))
    return "\n".join(lines)


def _retain(base: Outcome, adapted: Outcome, retain: Sequence[str]) -> str:
    task = adapted.stage.of.train.task.name  # type: ignore[attr-defined]
    before, after = (cast(Scores, outcome.record.result) for outcome in (base, adapted))
    return forgotten(before, after, trained_on=task, retain=retain)


def _training(training: Adapter) -> str:
    return (
        f"The record of the training: {training.steps} steps, {training.tokens} tokens ({training.epochs:.2f} epochs), "
        f"{training.seconds:.0f} s, {training.tokens_per_second:.0f} tokens/s, "
        f"{training.deployed_parameters:,} parameters, {training.adapter_bytes / 1e6:.1f} MB, "
        f"peak memory {training.peak_memory_bytes / 1e9:.2f} GB"
    )
