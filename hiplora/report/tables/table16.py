"""Table 16: what each arm forgets at equal learning, and contrasts of the arms with their verdicts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

from hiplora.report import contrasts
from hiplora.report.aggregate import Sample, per_seed
from hiplora.report.contrasts import SECOND, TRAINING, Measure
from hiplora.report.evidence import Evidence
from hiplora.report.notes import level_notes, table
from hiplora.report.table import Cell, Column, Table
from hiplora.stages.energy import TOP

LORA = "lora"  # rises are divided by this arm's
PAIRS = [("hip", "lora"), ("hip", "proj"), ("proj", "lora"), ("proj", "proj_random"), ("hip", "hip_free")]
INSIDE = [("inside_top", "inside_random")]
MOVING = [("hip_gated", "proj")]  # a moving principal channel against none, if selection's best hardly moves it
SECOND_TEXT = "text_sampled"
ONE_TEXT = "This data has one general text, so no verdict is checked against a second one."
UNSELECTED = "Contrasts: text rise on what nothing was selected on"
UNSEEN = ("mmlu", "code")  # nothing was selected on these
ENERGY = "Share of the update's energy in the leading singular subspaces, by task (%)"
WITHIN = "Confined to directions instead of kept out of them, at equal learning"
MOVED = "Contrast: text rise, the channel moving"
RESIZED = "lora_norms"  # merges of adapters that are first scaled to the norm of LoRA's
MARGIN, MARGIN_NLL = 0.10, 0.25  # of LoRA's mean at the level

NEVER = Column(label="Never at the level", decimals=0, spread="none")
RATIO = Column(label="Text rise, ratio to LoRA", decimals=2, better="down")
COLUMNS = (
    Column(label="Text rise (nats/token)", decimals=3, better="down", measure="scale/text"),
    Column(label="Second text (nats/token)", decimals=3, better="down", measure=f"scale/{SECOND_TEXT}"),
    Column(label="Retain-NLL (nats/token)", decimals=3, better="down", measure="scale/nll"),
    Column(label="its rises", decimals=3, measure="scale/rises"),
    Column(label="its falls", decimals=3, measure="scale/falls"),
    Column(label="Word problems' NLL (nats/token)", decimals=3, measure="scale/styled"),
    Column(label="Own score (%)", better="up", measure="level/own"),
    Column(label="c at the level", decimals=2, measure="scale/c"),
    Column(label="‖c ΔW‖", decimals=2, measure="scale/norm"),
    Column(label="Text rise, c = 1 (nats/token)", decimals=3, measure="whole/text"),
    Column(label="Own NLL, c = 1 (nats/token)", decimals=3, measure="whole/own"),
)
ENERGIES = {"energy/top": "energy", "energy/beyond": "energy beyond a random update's"}
KEPT = Column(label="Kept, {}", decimals=2, better="up")
NOTES = (
    "Each adapter is scaled after training, c ΔW, to the smallest c at which its own NLL on validation is at the level "
    "of its task. c follows from the points of its frontier, which are joined by monotone cubics; the adapter is then "
    "measured at that c, and what it forgot is read there (the second way of matching, along the training, has no such "
    "point and is interpolated). An "
    "adapter that never reaches the level is counted, and its seed is left out; further columns give the contrasts "
    "with such adapters included, taken at the c at which they have learned most.",
    "Text rise: rise of the cross-entropy on general text, as a ratio to LoRA's mean at the level for the same task, "
    "mean over the tasks of a seed. This mean of LoRA's is taken as known: its own uncertainty is in no interval of a "
    "ratio. Retain-NLL: rise of the gold answers' NLL on the other benchmarks except word problems, which have their "
    "own column; it is the sum of its rises and falls. ± is the standard deviation over training seeds.",
    "At c = 1 an adapter is as it was trained. The difference between its text rise there and at the level is what "
    "scaling alone takes away; the difference between its own NLL on validation and the level is what that costs.",
    "Kept by merges: (base − merged) / (base − own) of the gold answers' NLL, clipped to ±1, mean over the tasks; the "
    "merge takes one seed's adapters of all tasks, each at its c, or each scaled to the norm of LoRA's. Own is always "
    "the adapter alone at its c: with LoRA's norms, what a share lacks is lost by merging and by resizing together, so "
    "these contrasts get no verdict.",
    f"Energy: the share of ‖ΔW‖² whose left or right side lies in the subspaces of the {TOP} leading singular "
    "directions, of the finished update as trained. A random update's is the expectation for directions that are "
    "uniform on the sphere, with the same energy on every matrix; beyond it is the difference, in points. [ ] is the "
    "95 % Student-t interval over training seeds.",
    "A contrast is the first arm minus the second, paired by training seed, with the 95 % Student-t interval; "
    "inference is over seeds, the tasks are fixed. p is corrected by Holm over the contrasts of its section, "
    "including missing ones.",
    "Supported: p is below .05 and the difference is beyond the margin in favour of the first arm (10 % of LoRA's "
    "mean for text, 25 % for NLL and for what merges keep; without a margin if that mean is not above 0). Not "
    "supported: the 90 % interval lies inside the margin, or the difference is significant in favour of the second "
    "arm. Otherwise undecidable. A significant difference in text or NLL whose 90 % interval is not inside the margin "
    "is also undecidable if the second text (sampled from the backbone; for text) or the matching along the training "
    "(own NLL made monotone in the step) has the opposite sign or is missing; merges have no such check. A verdict "
    "holds for this scale only.",
    "Detectable: the smallest difference that these seeds would show with a power of 80 % at Holm's first step. Own "
    "score: the difference at the level, and its one-sided 95 % lower bound; below −3 pp, equal learning is not shown.",
)
SIGNED = (
    "Signs by task: of the difference for each task, in the order {}; a section without all of them keeps this order. "
    "· is no difference or no value."
)


@dataclass(frozen=True)
class Arms:
    """The measures of an arm by seed, each a mean over ``tasks`` of the runs of a group."""

    evidence: Evidence
    tasks: Sequence[str]
    group: str = "frontier"

    def mean(
        self, arm: str, measure: str, tasks: Sequence[str] = (), per: Mapping[str, Sample] | None = None
    ) -> Sample:
        """The measure's mean over the tasks, each divided by its mean in ``per``, if given."""
        return per_seed(self.evidence, measure, group=self.group, tasks=tasks or self.tasks, per=per, method=arm)

    def ratio(self, arm: str, measure: str, per: str = "") -> Sample:
        """The measure in units of LoRA's mean for each task (of the measure ``per``, if given)."""
        lora = {task: Arms(self.evidence, [task]).mean(LORA, per or measure) for task in self.tasks}
        if not all(sample.of and sample.mean > 0 for sample in lora.values()):  # without a rise there is no unit
            return Sample({}, self.mean(arm, measure).expected)
        return self.mean(arm, measure, per=lora)

    def kept(self, arm: str, *, task: str = "", everyone: bool = False, **point: str) -> Sample:
        """The share of its adapters' gains that a seed's merge at a ``point`` keeps, over all tasks or for one.

        Seeds whose adapters are not all at the level are left out, unless ``everyone``.
        """
        measure = f"kept/{task}" if task else "kept"
        found = per_seed(self.evidence, measure, group="merges", method=arm, **point)  # type: ignore[arg-type]
        seeds = found.of if everyone else self.mean(arm, "scale/c").of
        return Sample({seed: value for seed, value in found.of.items() if seed in seeds}, found.expected)


def build(evidence: Evidence) -> Table:
    """The arms at the level, then the contrasts of each measure."""
    grid = evidence.experiment
    arms, tasks = [*_arms(evidence)], evidence.comparable("frontier")
    every, unseen = Arms(evidence, tasks), Arms(evidence, [task for task in tasks if task in UNSEEN])
    inside = Arms(evidence, evidence.comparable("inside"), "inside")
    by_task = {task: Column(label=task, decimals=3, better="down") for task in tasks}
    energies = {task: Column(label=f"{task}, %", decimals=2, spread="ci", level="t") for task in tasks}
    merges = {
        (operator, norms): replace(KEPT, label=KEPT.label.format(grid.label(operator, norms)))
        for norms, operator in product(grid.keys("merges", "norms"), grid.keys("merges", "merge"))
    }
    sections = {
        "At equal learning": [cell for arm in arms for cell in _arm(every, arm, merges)],
        "Text rise by task (nats/token)": [
            every.mean(arm, "scale/text", [task]).mean_cell(f"{grid.label(arm)}, by task", column)
            for arm, (task, column) in product(arms, by_task.items())
        ],
        ENERGY: [cell for arm in arms for cell in _energy(every, arm, energies)],
        "Contrasts: text rise (primary)": _rows(every, "Text rise", PAIRS, _text(every)),
        **({MOVED: _rows(every, "Text rise", MOVING, _text(every))} if MOVING[0][0] in arms else {}),
        UNSELECTED: _rows(unseen, "Unseen tasks", PAIRS, _text(unseen)) if unseen.tasks else [],
        f"{WITHIN} ({', '.join(inside.tasks)})": [cell for arm in INSIDE[0] for cell in _arm(inside, arm, {})],
        "Contrast: text rise inside the directions": _rows(inside, "Inside", INSIDE, _text(inside)),
        "Contrasts: Retain-NLL": _rows(every, "Retain-NLL", PAIRS, _nll(every)),
        **{f"Contrasts: {c.label}": _rows(every, c.label, PAIRS, _merges(every, *key)) for key, c in merges.items()},
    }
    single = [] if SECOND_TEXT in evidence.texts else [ONE_TEXT]
    return table(
        evidence,
        "Table 16",
        columns=(NEVER, RATIO, *COLUMNS, *merges.values(), *by_task.values(), *energies.values(), *contrasts.COLUMNS),
        sections=sections,
        notes=[*NOTES, SIGNED.format(", ".join(tasks)), *single, *level_notes(evidence, "frontier")],
    )


def _arms(evidence: Evidence) -> Iterator[str]:
    """The arms, without ``hip_gated`` if its runs are those of ``hip``."""
    for arm in evidence.experiment.keys("frontier", "method"):
        if arm != MOVING[0][0] or _asked(evidence, arm) != _asked(evidence, "hip"):
            yield arm


def _asked(evidence: Evidence, arm: str) -> list[str]:
    """The ids of all stages that an arm's runs ask for."""
    entries = [each for slot in evidence.select("frontier", method=arm) for each in evidence.slots[slot].entries]
    return [known.id for each in entries if (known := each.record or each.stage) is not None]


def _arm(arms: Arms, arm: str, merges: Mapping[tuple[str, str], Column]) -> Iterator[Cell]:
    """The cells of an arm's row in the first section."""
    row, evidence = arms.evidence.experiment.label(arm), arms.evidence
    slots = [s for task in arms.tasks for s in evidence.select(arms.group, method=arm, task=task)]
    there = {each.slot: each for each in evidence.measure("scale/c", slots)}
    never = sum(math.isnan(each.value) for each in there.values())
    words = f"{never} of {len(there)}" if there else ""
    yield Sample(there, len(slots)).cell(row, NEVER, never if there else None, words=words)
    yield arms.ratio(arm, "scale/text").mean_cell(row, RATIO)
    for column in COLUMNS:
        if column.measure == f"scale/{SECOND_TEXT}" and SECOND_TEXT not in evidence.texts:
            continue
        yield arms.mean(arm, column.measure).mean_cell(row, column)
    for (operator, norms), column in merges.items() if arm in evidence.experiment.keys("merges", "method") else ():
        yield arms.kept(arm, merge=operator, norms=norms).mean_cell(row, column)


def _energy(arms: Arms, arm: str, columns: Mapping[str, Column]) -> Iterator[Cell]:
    """An arm's two rows on the energy of its updates: the share, and what it has beyond a random update's."""
    label = arms.evidence.experiment.label(arm)
    for (measure, words), (task, column) in product(ENERGIES.items(), columns.items()):
        yield arms.mean(arm, measure, [task]).mean_cell(f"{label}, {words}", column)


def _rows(arms: Arms, words: str, pairs: Sequence[contrasts.Pair], measure: Measure) -> list[Cell]:
    label = arms.evidence.experiment.label
    return list(contrasts.cells({pair: f"{words}: {' − '.join(map(label, pair))}" for pair in pairs}, measure))


def _text(arms: Arms) -> Measure:
    second = [(SECOND, partial(arms.ratio, measure=f"scale/{SECOND_TEXT}"))]
    second = second if SECOND_TEXT in arms.evidence.texts else []
    return Measure(
        of=partial(arms.ratio, measure="scale/text"),
        margin=MARGIN,
        checks=[*second, (TRAINING, partial(arms.ratio, measure="fraction/text"))],
        everyone=partial(arms.ratio, measure="any/text", per="scale/text"),
        own=partial(arms.mean, measure="level/own"),
        tasks=[partial(arms.mean, measure="scale/text", tasks=[task]) for task in arms.tasks],
    )


def _nll(arms: Arms) -> Measure:
    return Measure(
        of=partial(arms.mean, measure="scale/nll"),
        margin=_share(arms.mean(LORA, "scale/nll")),
        checks=[(TRAINING, partial(arms.mean, measure="fraction/nll"))],
        everyone=partial(arms.mean, measure="any/nll"),
        own=partial(arms.mean, measure="level/own"),
        tasks=[partial(arms.mean, measure="scale/nll", tasks=[task]) for task in arms.tasks],
    )


def _merges(arms: Arms, operator: str, norms: str) -> Measure:
    kept = partial(arms.kept, merge=operator, norms=norms)
    return Measure(
        of=kept,
        margin=None if norms == RESIZED else _share(kept(LORA)),
        unjudged="no verdict: resized" if norms == RESIZED else Measure.unjudged,
        better="up",
        everyone=partial(kept, everyone=True),
        tasks=[partial(kept, task=task) for task in arms.tasks],
    )


def _share(lora: Sample) -> float | None:
    """The margin for NLL and merges: a share of LoRA's mean; None without one above 0."""
    return MARGIN_NLL * lora.mean if lora.of and lora.mean > 0 else None
