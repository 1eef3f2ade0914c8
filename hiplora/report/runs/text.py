"""Records as text for a terminal: the list, one record, a comparison of two."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from hiplora.report.drift import remaining
from hiplora.report.plan import aligned, duration
from hiplora.report.runs.fields import Fields, about, asked, compared, numbers, shown
from hiplora.report.runs.predictions import by_benchmark, flips, passed, right, telling
from hiplora.report.runs.prompts import Prompts
from hiplora.report.runs.shelf import FIRST, Shelf
from hiplora.report.scores import number
from hiplora.stages.record import Record, Sample
from hiplora.stages.results import Adapter, Drifted, Frontier, Result, Scores
from hiplora.tasks import TASKS, primary

LINE = 100  # characters of an answer or a value in a table
DIGEST = re.compile(r"[0-9a-f]{40,}")
PROMPT = 700  # characters of a prompt; the middle of a longer one is left out


def listing(shelf: Shelf, found: Sequence[Fields], columns: Sequence[str]) -> str:
    """The list of some records, one line each, with further columns."""
    if not shelf.records:
        return f"{shelf.folder} has no record yet; make the first one with\n  {FIRST}"
    by_key = {(record.id, record.where): record for record in shelf.records}
    rows = [["kind", "id", "where", "made", "name", *columns, ""]]
    for each in found:
        record = by_key[str(each["id"]), str(each["where"])]
        head = [record.kind, f"{record.id}{each['marks']}", record.where, record.started[:16].replace("T", " ")]
        values = [_cut(shown(each[name]) if name in each else "") for name in columns]
        rows.append([*head, record.name, *values, headline(record.result)])
    count = f"{len(found)} of {len(shelf.records)} records in {shelf.folder}"
    return "\n".join(
        [*aligned(rows), "", count + "; show ID prints one in full, diff ID ID compares two.", *_broken(shelf)]
    )


def headline(result: Result) -> str:
    """The most important numbers of a result, as text."""
    if isinstance(result, Scores):
        words = [
            f"{name} {_percent(scores, headline_metric(name, scores))}" for name, scores in result.benchmarks.items()
        ]
        theirs = {name: task.metrics for name, task in result.lm_eval.items() if not task.group}
        words += [f"{name} {number(scores[next(iter(scores))])}" for name, scores in theirs.items() if scores]
        return ", ".join(words)
    if isinstance(result, Adapter):
        return f"loss {result.final_loss:.3f}, {result.steps} steps, {duration(result.seconds)}"
    if isinstance(result, Frontier):
        return f"{len(result.points)} points, {duration(result.seconds)}"
    if isinstance(result, Drifted):
        return remaining(result)
    seconds = getattr(result, "seconds", None)
    return "" if seconds is None else duration(seconds)


def headline_metric(name: str, scores: Mapping[str, float | None]) -> str:
    """The headline metric of a benchmark; for a general text its first metric."""
    return primary(name) if name in TASKS else next(iter(scores))


def _percent(scores: Mapping[str, float | None], metric: str) -> str:
    value = scores.get(metric)
    if value is None:  # code that was not executed, or likelihoods alone
        metric, value = "nll", scores.get("nll")
    if value is None:
        return "–"
    return f"NLL {value:.3f}" if metric == "nll" else f"{100 * value:.1f} %"


def show(shelf: Shelf, record: Record, prompts: Prompts, *, each: int | None) -> str:
    """The whole of one record as text, with up to ``each`` predictions of a kind; None: all."""
    marks = shelf.marks(record)
    versions = {name: value for name, value in record.environment.get("versions", {}).items() if value}
    facts = {**about(record), **versions, "file": str(shelf.path(record))}
    lines = [f"{record.kind} {record.name}", *_pairs({k: v for k, v in facts.items() if k not in ("kind", "name")})]
    lines += _pairs({"marks": marks}) if marks else []
    for id in record.needs:
        need = shelf.need(record, id)
        words = f"{need.kind} {need.name}" if need is not None else "no record of it is here"
        lines.append(f"  made from   {id} {words}")
    lines += [
        "",
        "Numbers",
        *_pairs({name: _cut(shown(value)) for name, value in numbers(record).items()}),
        "",
        "Settings",
        *_pairs(asked(record)),
    ]
    for benchmark, items in by_benchmark(shelf.readable(record)).items():
        known = [verdict for sample in items.values() if (verdict := right(sample)) is not None]
        counted = f"{sum(known)} of {len(known)} right" if known else f"{len(items)}, not judged right or wrong"
        lines += ["", f"Predictions: {benchmark}, {counted}"]
        wanted = list(items) if each is None else telling(items, None, each) or list(items)[:each]
        for id in wanted:
            lines += _prediction(record, items[id], prompts)
    return "\n".join([*lines, *_unread(shelf)])


def diff(shelf: Shelf, one: Record, two: Record, prompts: Prompts, *, each: int | None) -> str:
    """The differences between two records as text: settings, numbers, items that flipped."""
    lines = [f"A  {one.kind} {one.name} {one.id} ({one.where})", f"B  {two.kind} {two.name} {two.id} ({two.where})"]
    left, right_ = (
        asked(record) | {name: about(record)[name] for name in ("commit", "device")} for record in (one, two)
    )
    differ = compared(left, right_)
    rows = [[name, *(_cut(shown(side[name])) if name in side else "" for side in (left, right_))] for name in differ]
    lines += ["", "Settings", *(aligned([["", "A", "B"], *rows]) if rows else ["  the same"])]
    numbered = list(_numbers(one, two))
    lines += ["", "Numbers", *(aligned([["", "A", "B", "B − A"], *numbered]) if numbered else ["  the same"])]
    samples = [by_benchmark(shelf.readable(record)) for record in (one, two)]
    for benchmark in (name for name in samples[0] if name in samples[1]):
        found = flips(samples[0][benchmark], samples[1][benchmark])
        if not any(right(sample) is not None for of in samples for sample in of[benchmark].values()):
            lines += ["", f"{benchmark}: {len(samples[0][benchmark])} items, not judged right or wrong"]
            continue
        lines += ["", f"{benchmark}: right in A alone {len(found.lost)}, in B alone {len(found.gained)}, "
                      f"in both {len(found.both)}, in neither {len(found.neither)}"]  # fmt: skip
        lines += [f"  {found.other} items are not in both records or not answered in both"] if found.other else []
        for id in (id for ids in (found.lost, found.gained) for id in ids[:each]):
            sides = [(record, of[benchmark][id]) for record, of in zip((one, two), samples, strict=True)]
            lines += _flipped(sides, prompts)
    return "\n".join([*lines, *_unread(shelf)])


def _numbers(one: Record, two: Record) -> Iterator[list[str]]:
    """Rows of the numbers that differ."""
    left, right_ = numbers(one), numbers(two)
    for name, (a, b) in compared(left, right_).items():
        number = [isinstance(value, int | float) and not isinstance(value, bool) for value in (a, b)]
        change = f"{b - a:+.6g}" if all(number) else ""  # type: ignore[operator]
        yield [name, _cut(shown(a)) if name in left else "", _cut(shown(b)) if name in right_ else "", change]


def _prediction(record: Record, sample: Sample, prompts: Prompts) -> Iterator[str]:
    found, verdict = prompts.show(record, sample), right(sample)
    nll = f"NLL {sample['nll']:.3f}" if "nll" in sample else ""
    words = {True: "right", False: "wrong", None: nll}[verdict]
    yield f"  {sample.get('id', '')}: {words}{passed(sample)}"
    yield from _block("prompt", found.prompt or f"({found.reason})")
    if found.right is not None:
        yield from _block("right", found.right)
    if found.given is not None:
        yield from _block("given", found.given)
    if found.prompt is None:
        yield from _block("kept", json.dumps(sample, ensure_ascii=False))


def _flipped(sides: Sequence[tuple[Record, Sample]], prompts: Prompts) -> Iterator[str]:
    found = [prompts.show(record, sample) for record, sample in sides]
    yield f"  {sides[0][1].get('id')}: right in {'A' if right(sides[0][1]) else 'B'}"
    yield from _block("prompt", found[0].prompt or f"({found[0].reason})")
    if found[0].right is not None:
        yield from _block("right", found[0].right)
    for name, each, (_, sample) in zip("AB", found, sides, strict=True):
        yield from _block(name, (each.given or "") + passed(sample))


def _block(name: str, text: str) -> list[str]:
    """Lines of a text after a label, indented; the middle of a long text is left out."""
    short = text if len(text) <= PROMPT else f"{text[: PROMPT // 2]} […] {text[-PROMPT // 2 :]}"
    first, *more = short.strip("\n").split("\n")
    return [f"    {name:<7}{first}", *(f"           {line}" for line in more)]


def _pairs(found: Mapping[str, object]) -> list[str]:
    width = max(map(len, found), default=0)
    return [f"  {name:<{width}}  {shown(value)}" for name, value in found.items()]


def _cut(text: str) -> str:
    """A value shortened to fit a column; a file's digest to its first 12 digits."""
    if DIGEST.fullmatch(text):
        return text[:12]
    return text if len(text) <= LINE else f"{text[: LINE - 1]}…"


def _unread(shelf: Shelf) -> list[str]:
    return ["", *(f"Left out: {sentence}" for sentence in shelf.unread)] if shelf.unread else []


def _broken(shelf: Shelf) -> list[str]:
    return [f"Left out: {sentence}" for sentence in shelf.broken]
