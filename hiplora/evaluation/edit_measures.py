"""Measures of edits, per item and on average, from the answers of a model (:mod:`hiplora.evaluation.editing`).

Figures of :func:`means`, averaged over items (within an item, first over its paraphrases or neighbours):
    paraphrase_success, paraphrase_generated, paraphrase_preferred   the outcomes below, for the paraphrases
    neighbourhood            share of neighbours with log p(answer) > log p(new of the edit), summed over tokens
    neighbourhood_begins     share of neighbours whose greedy completion begins with the answer's tokens
    log_p_new, log_p_old     mean log-probability per token after the edit's own prompt
    sum_log_p_new, sum_log_p_old, tokens_new, tokens_old             log-probabilities summed, and numbers of tokens
    paraphrase_log_p_new, paraphrase_log_p_old                       per token, after the paraphrases
    neighbour_log_p_answer, neighbour_log_p_new                      per token, after the neighbours' prompts
and of :func:`probe_means`, averaged over probes, for the probe's right answer (gold) and the ``new`` of an edit:
    probe_log_p_gold, probe_log_p_new        per token
    front_log_p_gold, front_log_p_new        per token, with the edit's sentence in front
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from hiplora.tasks.edit_items import normalised

if TYPE_CHECKING:
    from hiplora.evaluation.editing import Replies, Reply
    from hiplora.evaluation.scoring import Scored

ALL = "all"


def generated(reply: Reply, new: str) -> bool:
    """Whether the greedy completion is the new answer, both normalised."""
    return normalised(reply.text) == normalised(new)


def preferred(reply: Reply) -> bool:
    """Whether the new answer is likelier than the old one; log-probabilities are summed over tokens."""
    return reply.new.log_prob > reply.old.log_prob


def success(reply: Reply, new: str) -> bool:
    """The headline measure: generated or preferred."""
    return generated(reply, new) or preferred(reply)


def outcomes(found: Sequence[Replies]) -> dict[str, list[bool]]:
    """Outcome → a flag for every item, at its own prompt; :class:`hiplora.stages.results.EditedBatch` defines them."""
    own = [(each.prompts[0], each.item) for each in found]
    return {
        "generated": [generated(reply, item.new) for reply, item in own],
        "begins": [reply.new.greedy for reply, _ in own],
        "preferred": [preferred(reply) for reply, _ in own],
        "believed": [reply.old.greedy or reply.old.log_prob > reply.new.log_prob for reply, _ in own],
    }


def bits(flags: Iterable[bool]) -> str:
    """Flags as a string of 0 and 1."""
    return "".join("1" if flag else "0" for flag in flags)


def per_token(scored: Scored) -> float:
    """Mean log-probability per token, in nats."""
    return scored.log_prob / scored.tokens


def means(found: Sequence[Replies]) -> dict[str, dict[str, float]]:
    """Category or ``all`` → figure → mean over its items."""
    figures: dict[str, Callable[[Replies], float]] = {
        "paraphrase_success": lambda r: fmean(success(each, r.item.new) for each in r.prompts[1:]),
        "paraphrase_generated": lambda r: fmean(generated(each, r.item.new) for each in r.prompts[1:]),
        "paraphrase_preferred": lambda r: fmean(preferred(each) for each in r.prompts[1:]),
        "neighbourhood": lambda r: fmean(each.answer.log_prob > each.new.log_prob for each in r.neighbours),
        "neighbourhood_begins": lambda r: fmean(each.answer.greedy for each in r.neighbours),
        "log_p_new": lambda r: per_token(r.prompts[0].new),
        "log_p_old": lambda r: per_token(r.prompts[0].old),
        "sum_log_p_new": lambda r: r.prompts[0].new.log_prob,
        "sum_log_p_old": lambda r: r.prompts[0].old.log_prob,
        "tokens_new": lambda r: r.prompts[0].new.tokens,
        "tokens_old": lambda r: r.prompts[0].old.tokens,
        "paraphrase_log_p_new": lambda r: fmean(per_token(each.new) for each in r.prompts[1:]),
        "paraphrase_log_p_old": lambda r: fmean(per_token(each.old) for each in r.prompts[1:]),
        "neighbour_log_p_answer": lambda r: fmean(per_token(each.answer) for each in r.neighbours),
        "neighbour_log_p_new": lambda r: fmean(per_token(each.new) for each in r.neighbours),
    }
    columns = {name: [figure(each) for each in found] for name, figure in figures.items()}
    return by_category([each.item.category for each in found], columns)


def probe_means(categories: Sequence[str], columns: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """Category or ``all`` → figure → mean over its probes; probe k has the category of edit k mod n."""
    return by_category(
        [categories[number % len(categories)] for number in range(len(next(iter(columns.values()))))], columns
    )


def by_category(categories: Sequence[str], columns: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """Mean of every column over all rows and over those of each category."""
    groups = {ALL: [*range(len(categories))]}
    for row, category in enumerate(categories):
        groups.setdefault(category, []).append(row)
    return {
        group: {name: round(fmean(values[row] for row in rows), 6) for name, values in columns.items()}
        for group, rows in groups.items()
    }
