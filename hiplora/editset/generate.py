"""Draws the thousand items from the tables, by hashes: the same on every machine.

Subjects that the held-out questions of the mini-benchmarks mention are never edited; they serve as neighbours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache

from hiplora.editset.facts import Fact
from hiplora.editset.relations import NAMESAKES, RELATIONS, Relation
from hiplora.mini import corpora
from hiplora.mini.draw import Draw, by_hash
from hiplora.mini.english import start

PROBES = tuple(f"{name}/{split}.jsonl" for name in ("mmlu", "scienceqa", "gsm8k") for split in ("validation", "test"))
RESERVED = 10  # least number of subjects of each kind that are kept as neighbours
NEIGHBOURS = 2
CATEGORIES = ("entity", "relation", "temporal")

Row = dict[str, object]


@cache
def words(text: str) -> str:
    """The words in lower case with a space around each, so that `in` finds only whole words."""
    return f" {re.sub(r'[^a-z0-9]+', ' ', text.casefold()).strip()} "


def texts(value: object) -> Iterator[str]:
    """Every text in a row of a benchmark."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from texts(part)


@cache
def probes() -> str:
    """All words of the held-out items of the three locality benchmarks."""
    made = corpora()
    return words("\n".join(text for name in PROBES for row in made[name]() for text in texts(row)))


@cache
def asked(subject: str) -> bool:
    """Whether the probes contain the subject's words in sequence, ignoring case."""
    return words(subject) in probes()


@cache
def facts(relation: Relation) -> tuple[Fact, ...]:
    return tuple(relation.facts())


@cache
def reserved(kind: str) -> frozenset[str]:
    """Subjects that are never edited: those in the probes, and more until there are ``RESERVED``."""
    names = {fact.subject for relation in RELATIONS if relation.kind == kind for fact in facts(relation)}
    known = {name for name in names if asked(name)}
    further = by_hash(sorted(names - known), "reserved", kind)[: max(0, RESERVED - len(known))]
    return frozenset(known | set(further))


@cache
def phrases(subject: str) -> frozenset[str]:
    """Every run of consecutive words, the whole included: "New York City" -> "New", "New York", …"""
    parts = words(subject).split()
    return frozenset(
        words(" ".join(parts[first:last])) for first in range(len(parts)) for last in range(first + 1, len(parts) + 1)
    )


def overlaps(subject: str, others: Iterable[str]) -> bool:
    """Whether this subject contains a different one or is part of it, as Virginia is of West Virginia."""
    own, parts = words(subject), phrases(subject)
    return any(other != subject and (words(other) in parts or own in phrases(other)) for other in others)


def ordered(known: Sequence[Fact], *salt: object) -> list[Fact]:
    """The facts in an order that follows from hashes of their subjects."""
    by_subject = {fact.subject: fact for fact in known}
    return [by_subject[subject] for subject in by_hash(list(by_subject), *salt)]


def chosen() -> list[tuple[Relation, Fact]]:
    """The facts to edit: ``count`` of every relation."""
    picked: list[tuple[Relation, Fact]] = []
    for relation in RELATIONS:
        before = {fact.subject for _, fact in picked}
        alone = {fact.subject for other, fact in picked if other.once or relation.once}
        inverse = {answer for _, fact in picked if relation.once for answer in fact.answers}
        free: list[Fact] = []
        for fact in ordered(facts(relation), "edits", relation.name):
            subject = fact.subject
            if subject in reserved(relation.kind) | alone | inverse or asked(subject):
                continue
            if not overlaps(subject, before | {taken.subject for taken in free}):
                free.append(fact)
        if len(free) < relation.count:
            raise ValueError(f"{relation.name} has {len(free)} subjects to edit; RELATIONS asks for {relation.count}")
        picked += [(relation, fact) for fact in free[: relation.count]]
    return picked


def sentence(stem: str, fact: Fact) -> str:
    return stem.format(s=fact.text, S=start(fact.text))


def unedited(relation: Relation, edited: frozenset[str]) -> list[Fact]:
    return [f for f in facts(relation) if f.subject not in edited and not overlaps(f.subject, edited)]


def inverse(relation: Relation, picked: list[tuple[Relation, Fact]]) -> frozenset[str]:
    """Edited subjects that are no new answer of a relation, as their own edit would contradict it.

    That Aruba's capital is Rome, and Rome the capital of Chad; or that Rome is the capital of Chad, and Chad's is Oslo.
    """
    pairs = ((fact.subject, other) for other, fact in picked)
    return frozenset(
        subject
        for subject, other in pairs
        if (other.once and not relation.once) or (relation.name, other.name) == ("capital_of", "capital")
    )


def new_answer(relation: Relation, fact: Fact, unusable: frozenset[str]) -> str:
    """The answer that the model is taught."""
    draw = Draw("new", relation.name, fact.subject)
    new = draw.pick(fact.wrong)
    while new in unusable or (fact.subject, new) in NAMESAKES:
        new = draw.pick(fact.wrong)
    return new


def item(relation: Relation, fact: Fact, new: str, *, others: list[Fact]) -> Row:
    """One row of the file, without its id. Its neighbours are two of ``others`` that do not have the new answer."""
    prompt, *paraphrases = (sentence(stem, fact) for stem in relation.stems)
    near = [f for f in ordered(others, "neighbours", relation.name, fact.subject) if new not in f.answers][:NEIGHBOURS]
    if len(near) < NEIGHBOURS:
        raise ValueError(f"{relation.name} leaves no neighbours for {fact.subject}")
    return {
        "category": relation.category,
        "relation": relation.name,
        "subject": fact.subject,
        "prompt": prompt,
        "old": fact.answers[0],
        "new": new,
        "answers": list(fact.answers),
        "paraphrases": paraphrases,
        "neighbours": [{"prompt": sentence(relation.stems[0], f), "answer": f.answers[0]} for f in near],
    }


def generated() -> list[Row]:
    """The items in the order of the file: by category, with the relations of a category shuffled."""
    picked = chosen()
    edited = frozenset(fact.subject for _, fact in picked)
    others = {relation: unedited(relation, edited) for relation in RELATIONS}
    made = [
        item(relation, fact, new_answer(relation, fact, inverse(relation, picked)), others=others[relation])
        for relation, fact in picked
    ]
    rows: list[Row] = []
    for category in CATEGORIES:
        mixed = Draw("order", category).shuffled([row for row in made if row["category"] == category])
        rows += [{"id": f"{category}-{number:04d}", **row} for number, row in enumerate(mixed, start=1)]
    return rows
