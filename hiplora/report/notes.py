"""Captions and notes of tables and figures: where the numbers come from, how to read them, what is missing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from hiplora import selection
from hiplora.config import digest
from hiplora.methods import method_class
from hiplora.pipelines.frontier import Frontiers
from hiplora.report.evidence import Evidence
from hiplora.report.figure import Figure
from hiplora.report.marks import MEANINGS
from hiplora.report.table import Cell, Column, Table
from hiplora.stages.results import Adapter

PRINTED = ("Python", "torch", "transformers", "peft")
PARITY = 0.01  # relative difference in deployed parameters that counts as equal
COUNTED = (
    "In parentheses: the number of {} behind a value; (2/3) means that one of three is missing or has no value (see "
    "the notes), – that this holds for all. A blank is not defined."
)
PAPER = "The paper's values are those stated in the text of arXiv:{arxiv} ({backbone}, {data})."
OTHER = (
    "The paper's values (arXiv:{arxiv}) are of {backbone} on the {data}; ours are of {0.backbone} on {0.data}. The two "
    "are not comparable, and nothing here is a reproduction of the paper's numbers."
)
LITERAL = (
    "The paper's HiP-LoRA is its literal parameterisation, absolute φ; HiP-LoRA here is the relative one, as selected."
)
METHODS, PAIRED = "Methods", "Paired differences"  # headings
PAIRED_NOTE = (
    "Paired differences: the first method minus the second, by training seed; in brackets the 95 % Student-t interval. "
    "Nothing is corrected for the number of rows and columns."
)
INTERVALS = (
    "In brackets: 95 % percentile intervals of the hierarchical paired bootstrap (sampling seeds, then instances "
    "within each; 10 000 replicates, the same for every method). Instances share adapters, so these intervals are far "
    "too narrow. The adapter-level (pigeonhole) intervals, which resample the adapters, are much less so: where both "
    "are shown, use the adapter-level one. An interval of width 0 means that all instances agreed, not that the rate "
    "is known; a single sampling seed has no interval."
)


def table(
    evidence: Evidence,
    title: str,
    *,
    columns: Sequence[Column],
    cells: Sequence[Cell] = (),
    sections: Mapping[str, Sequence[Cell]] | None = None,
    notes: Iterable[str] = (),
    counted: str = "",
) -> Table:
    """A table with its caption, its own notes, and the general notes for its columns and records.

    ``sections`` are its cells by heading, instead of ``cells``; a section without cells is left out. ``counted`` names
    what a value is averaged over, if the columns do not tell.
    """
    parts = {heading: group for heading, group in (sections or {}).items() if group}
    paper, labels = evidence.experiment.paper, evidence.experiment.labels
    over = {"seeds": False, "instances": False}  # columns with a bootstrap are over instances
    for column in columns:
        over["instances" if column.spread == "ci" and column.level != "t" else "seeds"] = True
    judged = any(column.measure.startswith("fail") for column in columns)
    written = judged or any(column.measure == "drop" for column in columns)
    every = [
        COUNTED.format(counted or " or ".join(name for name, occurs in over.items() if occurs)),
        *notes,
        *([INTERVALS] if over["instances"] else prefix_notes(evidence)),
        *(unjudged_notes(evidence) if judged else ()),
        *(unmeasured_notes(evidence) if written else ()),
        *mark_notes(evidence),
        *parity_notes(evidence),
        *evidence.notes,
        *([LITERAL] if paper and "hip" in labels and "hip_absolute" not in labels else []),
        *([(PAPER if evidence.scale == "paper" else OTHER).format(evidence, **paper["source"])] if paper else []),
    ]
    return Table(
        name=file_name(evidence),
        title=f"{title}. {evidence.experiment.title}",
        caption=caption(evidence),
        columns=tuple(columns),
        cells=(*cells, *(cell for group in parts.values() for cell in group)),
        notes=tuple(every),
        commands=evidence.commands,
        sections={heading: list(dict.fromkeys(cell.row for cell in group)) for heading, group in parts.items()},
    )


def figure(evidence: Evidence, title: str, *, notes: Iterable[str], **drawn: Any) -> Figure:
    """A figure with its caption, its own notes, and the general notes for its records."""
    return Figure(
        name=file_name(evidence),
        title=f"{title}. {evidence.experiment.title}",
        caption=caption(evidence),
        notes=(*notes, *mark_notes(evidence), *parity_notes(evidence), *evidence.notes),
        commands=evidence.commands,
        **drawn,
    )


def file_name(evidence: Evidence) -> str:
    """The name of the files: the experiment's, with a digest if the user changed settings."""
    name, changed = evidence.experiment.name, list(evidence.changed)
    return f"{name}-{digest({'settings': changed})[:6]}" if changed else name


def mark_notes(evidence: Evidence) -> Iterator[str]:
    """The meanings of the marks that occur."""
    marks = Counter(mark for entry, _ in evidence.recorded for mark in entry.marks)
    yield from (f"{mark} {words} ({marks[mark]} records)." for mark, words in MEANINGS.items() if marks[mark])


def caption(evidence: Evidence) -> str:
    """The caption: backbone, data, scale, changed settings; device and arithmetic, hardware, software, commits."""
    parts = [f"Backbone {evidence.backbone}, {evidence.data}, scale {evidence.scale}."]
    if evidence.changed:
        parts.append(f"Not under the settings of conf/, but with {', '.join(evidence.changed)}.")
    if not evidence.recorded:
        return " ".join([*parts, "No run of this table is there yet."])
    counts: dict[str, Counter[str]] = {"Hardware": Counter(), "Software": Counter(), "Source": Counter()}
    for raw in (record.environment for _, record in evidence.recorded):
        versions, commit = {"Python": raw["python"], **raw["versions"]}, raw.get("git_commit")
        software = [f"{name} {versions[name]}" for name in PRINTED if versions.get(name)]
        dirty = " with uncommitted changes" if raw.get("git_dirty") else ""
        counts["Hardware"][f"{raw['device']}, {raw['cores']} cores, {raw['platform']}"] += 1
        counts["Software"][", ".join(software)] += 1
        counts["Source"][f"commit {commit[:10]}{dirty}" if commit else "commit unknown"] += 1
    parts.append(f"Computed as {evidence.where}.")
    for name, found in counts.items():
        several = [f"{text} ({count} records)" for text, count in found.items()]
        parts.append(f"{name}: {'; '.join(several if len(found) > 1 else found)}.")
    return " ".join(parts)


def parity_notes(evidence: Evidence) -> Iterator[str]:
    """A note on each method's deployed parameters relative to LoRA's (else the first method without exception)."""
    sizes: dict[str, list[tuple[int, int]]] = {}
    exceptions: dict[str, str | None] = {}
    for slot in evidence.slots:
        if slot.run.pipeline == "matched_merge":  # it also asks for adapters of another method
            continue
        for record in (entry.record for entry in slot.entries if entry.role == "train" and entry.record is not None):
            result, key = cast(Adapter, record.result), slot.run.point["method"]
            sizes.setdefault(key, []).append((result.deployed_parameters, result.trainable_parameters))
            exceptions[key] = method_class(record.asked["method"]["name"]).parity_exception
    if not sizes:
        return

    def ends(values: Sequence[float], form: str) -> str:
        return " to ".join(dict.fromkeys(format(value, form) for value in (min(values), max(values))))

    reference = min(sizes, key=lambda key: (key != "lora", exceptions[key] is not None))
    count = max(deployed for deployed, _ in sizes[reference])
    parts = [f"{evidence.experiment.label(reference)} {count:,}"]
    for key in (key for key in sizes if key != reference):
        deployed, trained = zip(*sizes[key], strict=True)
        words = f"{evidence.experiment.label(key)} × {ends([size / count for size in deployed], '.3f')}"
        if exceptions[key]:
            words += f" (exception: {exceptions[key]}; {ends(trained, ',')} trained, {ends(deployed, ',')} deployed)"
        elif any(abs(size / count - 1) > PARITY for size in deployed):
            words += f" (outside {PARITY:.0%})"
        parts.append(words)
    yield f"Deployed parameters, which should be equal to within {PARITY:.0%}: {'; '.join(parts)}."


def level_notes(evidence: Evidence, group: str) -> Iterator[str]:
    """Notes on the levels at which adapters are compared, and on tasks of a group that are left out, with reasons."""
    tasks = evidence.experiment.keys(group, "task")
    if levels := [f"{task} {evidence.usable[task]:.3f}" for task in tasks if task in evidence.usable]:
        yield f"Levels, own NLL on validation in nats per token: {', '.join(levels)}.{_level_origin(evidence, tasks)}"
    options = (slot.config.pipeline for slot in evidence.slots if slot.run.group == group and slot.config is not None)
    if (asked := next((each for each in options if isinstance(each, Frontiers)), None)) is not None:
        yield (
            f"At every point of a frontier the own NLL is of up to {asked.own_items} items of validation; forgetting "
            f"is of up to {asked.other_items} items of each benchmark and {asked.text_tokens:,} tokens of each general "
            "text."
        )
    if absent := [task for task in tasks if task not in evidence.levels]:
        left = "; left out here" if evidence.levels else ""
        yield f"No level yet for {', '.join(absent)}: python -m hiplora.run pipeline=select fixes it{left}."
    for task in tasks:
        if task in evidence.levels and task not in evidence.usable:
            yield (
                f"{task} is left out: its level, {evidence.levels[task]:.3f}, is not below the backbone's own NLL, so "
                "an adapter has nothing to learn for it."
            )


def _level_origin(evidence: Evidence, tasks: Sequence[str]) -> str:
    """What a level is and whose adapters it is taken from, in a sentence; empty without the selection that fixed it."""
    chosen = selection.read(evidence.folder)
    if chosen is None or evidence.store is None:
        return ""
    asked = [evidence.store.tracked.asked(id) for task in tasks for id in chosen.levels_from.get(task, ())]
    trained = [each["of"] for each in asked if each is not None]
    methods = dict.fromkeys(evidence.experiment.label(each["method"]["name"]) for each in trained)
    seeds = ", ".join(map(str, sorted({each["seed"] for each in trained})))
    whose = f" ({', '.join(methods)}; seeds {seeds})" if trained else ""
    return (
        f" Each is the NLL at which the adapters of selection{whose} have made {100 * chosen.level_gain:.0f} % of "
        "their largest gain at any c, averaged over them."
    )


def prefix_notes(evidence: Evidence) -> Iterator[str]:
    """A note on whether trainings computed shared prefixes once, which affects their dropout masks."""
    found: dict[bool, dict[str, str]] = {True: {}, False: {}}  # id of a training → the row that it belongs to
    for slot in evidence.slots:
        for entry in slot.entries:
            if isinstance(entry.result, Adapter) and entry.record is not None:
                found[entry.result.share_prefixes].setdefault(entry.record.id, slot.run.point["method"])
    words = []
    for way, how in {True: "once, with one dropout mask for each", False: "for each prompt, with its own"}.items():
        count = f"{len(found[way])} training{'s' if len(found[way]) > 1 else ''}"
        rows = ", ".join(map(evidence.experiment.label, dict.fromkeys(found[way].values())))
        words += [f"{how} ({f'{rows}: {count}' if found[not way] else count})"] if found[way] else []
    if words:
        yield f"In training, prefixes that prompts share were computed {'; '.join(words)}."


def unjudged_notes(evidence: Evidence) -> Iterator[str]:
    """A note on how often MergeFail could not be judged because an adapter scored 0 before the merge."""
    excluded, failed = (evidence.measure(name, evidence.select("merge")) for name in ("excluded", "fail@0.9"))
    judged = [(one, other) for one, other in zip(excluded, failed, strict=True) if not math.isnan(one.value)]
    tasks, undecided = sum(len(one.members) for one, _ in judged), sum(math.isnan(other.value) for _, other in judged)
    yield (
        "A task whose adapter scored 0 before the merge cannot fall and is not judged: "
        f"{sum(one.value for one, _ in judged):.0f} of {tasks} task scores here; {undecided} of {len(judged)} "
        "instances had no task left to judge and are not counted."
    )


def unmeasured_notes(evidence: Evidence) -> Iterator[str]:
    """A note on how many merges lack a score of a merged task; none if all scores exist."""
    slots = evidence.select("merge")
    drops, judged = evidence.measure("drop", slots), evidence.measure("excluded", slots)
    if short := sum(math.isnan(each.value) for each in drops):
        blind = sum(math.isnan(each.value) for each in judged)
        yield (
            f"{short} of {len(drops)} instances merge code without all of pass@1, @5 and @10 (not executed, only "
            "likelihoods asked for, or fewer than 10 completions sampled): they have no mean absolute drop"
            + (f", and {blind} of them, without pass@1, no MergeFail." if blind else ".")
        )
