"""The page that shows a selection: the winners, what to write into conf/, and every trial with its records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hiplora.selection import Matched, Selection, Settings, Trial

PARTS = {"text": "general text", "retain_nll": "Retain-NLL"}
COLUMNS = ("reached", "c", "lowest own NLL", "text", "other rises", "Retain-NLL", "norm", "top", "channel", "records")


def page(chosen: Selection, *, scale: str) -> str:
    """The selection in Markdown."""
    lines = ["# What selection chose", "", *_rules(chosen), "", "## Winners", "", *_winners(chosen)]
    lines += ["", "## What to write", "", *_sentences(chosen, scale), "", "## Levels of learning", "", *_levels(chosen)]
    lines += ["", "## The reference", "", *_reference(chosen)]
    for method in chosen.winners:
        lines += ["", f"## Trials of {method}", "", *_trials([t for t in chosen.trials if t.method == method])]
    return "\n".join(lines) + "\n"


def to_write(chosen: Selection, *, scale: str) -> dict[str, list[str]]:
    """File of conf/ → the winners' settings that belong in it, as lines of YAML.

    The best candidate whose channel moves, if it is not the winner, becomes the option ``<method>_gated`` of the group
    ``method``.
    """
    gated = {f"{name}_gated": each for name, each in chosen.gated.items() if each != chosen.winners[name]}
    files: dict[str, list[str]] = {}
    for choice, settings in {**chosen.winners, **gated}.items():
        sections: dict[str, list[str]] = {}
        for option, value in (settings or {}).items():
            section, _, name = option.partition(".")
            sections.setdefault(section, []).append(f"{name}: {_plain(value)}")
        if own := sections.pop("method", []):
            files[f"conf/method/{choice}.yaml"] = own
        if sections:
            lines = [line for name, each in sections.items() for line in (f"{name}:", *(f"  {one}" for one in each))]
            files[f"conf/selected/{scale}/{choice}.yaml"] = lines
    return files


def _rules(chosen: Selection) -> list[str]:
    parts = " and ".join(PARTS[part] for part in chosen.objective)
    levels = ", ".join(f"{task} {level:.4f}" for task, level in chosen.reference.levels.items())
    return [
        f"Weights of {chosen.backbone}; everything on validation. Written by `python -m hiplora.run pipeline=select`, "
        "which derives it from the records named here; the same command reuses them on a machine that computes as "
        "theirs did (`model.arithmetic` makes it do so).",
        "",
        "Every adapter is scaled after training, c ΔW, to the smallest c at which its own NLL is the level L of its "
        f"task ({levels} nats): the mean own NLL of the reference's adapters at c = {chosen.level_scale:g}. J is the "
        f"mean of the rises of {parts} there, each over the mean of the reference's on the task; between two scales "
        "the curves are straight lines here, in tables they are cubics. An adapter that never "
        "reaches L has no J and loses; it is shown at the scale at which it has learned most. In the finals, the "
        "candidate that misses the level least often wins; of several, the one with the lowest J over the runs that "
        "reach it; of equal ones, the first tried.",
    ]


def _winners(chosen: Selection) -> Iterator[str]:
    yield from _table(("method", "J", "J in the finals", "settings"))
    for method, settings in chosen.winners.items():
        yield _row(method, *_scores(chosen, method, settings), _words(settings))
    for method, settings in chosen.gated.items():
        name = f"{method}, its principal channel holding at least {chosen.gate:.0%}"
        yield _row(name, *_scores(chosen, method, settings), _words(settings))


def _scores(chosen: Selection, method: str, settings: Settings | None) -> tuple[str, str]:
    trial = next((t for t in chosen.trials if t.method == method and t.settings == settings), None)
    return (_number(trial.objective), _final(trial)) if trial is not None else ("–", "–")


def _sentences(chosen: Selection, scale: str) -> Iterator[str]:
    yield (
        "Selection changes no setting by itself. A person writes these into the files, in place of the same fields, "
        "and marks them `[ours]`:"
    )
    for file, lines in to_write(chosen, scale=scale).items():
        yield from ("", f"`{file}`", "```yaml", *lines, "```")
    yield ""
    for method, settings in [*chosen.winners.items(), *chosen.gated.items()]:
        if settings is None:
            gate = "" if chosen.winners[method] is None else ", its principal channel moving,"
            yield f"- {method}{gate} has no winner: no candidate qualifies."


def _levels(chosen: Selection) -> Iterator[str]:
    yield (
        "Methods are compared at these levels. Each is the own NLL at which the adapters in its row have made "
        f"{chosen.level_gain:.0%} of their largest gain at any c, averaged over them."
    )
    yield ""
    yield from _table(("task", "level", "records"))
    for task, level in chosen.levels.items():
        yield _row(task, f"{level:.4f}", ", ".join(f"frontier {id}" for id in chosen.levels_from[task]))
    if chosen.left_out:
        yield ""
        yield from (
            f"{task} has no level: {why}, so nothing has to be learned." for task, why in chosen.left_out.items()
        )


def _reference(chosen: Selection) -> Iterator[str]:
    yield f"`{' '.join(chosen.reference.words)}`"
    yield ""
    yield from _table(("run", *COLUMNS))
    yield from (_row(f"{run.task}, seed {run.seed}", *_matched(run)) for run in chosen.reference.runs)


def _trials(trials: Sequence[Trial]) -> Iterator[str]:
    common = set.intersection(*(set(trial.words) for trial in trials))
    yield f"All with `{' '.join(word for word in trials[0].words if word in common)}`; {len(trials)} trials."
    yield ""
    yield from _table(("stage", "settings", "J", "J in the finals", *COLUMNS))
    for trial in trials:
        words = " ".join(word for word in trial.words if word not in common)
        numbers = (_number(trial.objective), _final(trial))
        yield _row(str(trial.stage), f"`{words}`", *numbers, *_matched(trial.first))
        for run in trial.runs:
            yield _row("final", f"the same, {run.task}, seed {run.seed}", "", "", *_matched(run))


def _final(trial: Trial) -> str:
    misses = sum(not run.reached for run in trial.runs)
    return _number(trial.final) + (f" ({misses} of {len(trial.runs)} never reach L)" if misses else "")


def _matched(run: Matched) -> tuple[str, ...]:
    rises = ", ".join(f"{name} {rise:+.3f}" for name, rise in run.rises.items() if name != "text")
    return (
        "yes" if run.reached else "no",
        f"{run.c:g}",
        f"{run.lowest:.4f}",
        f"{run.text:+.4f}",
        rises,
        f"{run.retain_nll:+.4f}",
        f"{run.norm:.3f}",
        _share(run.top_share),
        _share(run.channel_share),
        f"train {run.train}, frontier {run.frontier}",
    )


def _words(settings: Settings | None) -> str:
    if settings is None:
        return "none: no candidate qualifies"
    return "`" + " ".join(f"{option}={_plain(value)}" for option, value in settings.items()) + "`"


def _plain(value: Any) -> str:
    """A value as YAML and as an override."""
    if isinstance(value, list):
        return f"[{','.join(map(_plain, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.2%}"


def _table(head: Sequence[str]) -> tuple[str, str]:
    return _row(*head), _row(*("---" for _ in head))


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def lines_to_write(files: dict[str, list[str]]) -> Iterator[str]:
    """The same for the terminal: each file with its lines."""
    for file, lines in files.items():
        yield f"To write into {file}:"
        yield from (f"  {line}" for line in lines)
