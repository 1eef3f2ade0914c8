"""Questions answered from a hint by a rule: food chains, dominant alleles, magnets and charges."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from hiplora.mini.draw import digest
from hiplora.mini.english import start, with_article
from hiplora.mini.facts import things
from hiplora.mini.science.question import Question

# (magnets, charged bodies): first what attracts, then what repels
SAME = (
    ("face each other with opposite poles", "have opposite charges"),
    ("face each other with the same pole", "have the same charge"),
)
COLORS = ("red", "blue", "green", "yellow", "black", "white", "silver", "orange")
BODIES = ("magnet", "ball", "balloon", "rod", "bead", "plate")


def _chains() -> Iterator[Question]:
    for chain, place in things("chain"):
        links = chain.split(">")
        hint = f"The food chain of {with_article(place)} goes from {' to '.join(links)}."
        asked = [
            ("The food chain begins with the", 0),
            ("The food chain ends with the", len(links) - 1),
        ]
        asked += [(f"The living things that eat the {links[n]} are the", n + 1) for n in range(len(links) - 1)]
        for stem, right in asked:
            wrong = tuple(link for n, link in enumerate(links) if n != right)
            yield Question("chain", chain, stem, links[right], wrong, hint)


def _genes() -> Iterator[Question]:
    for pair, organism in things("gene"):
        dominant, recessive = pair.split(":")
        hint = f"In {organism}, the allele for {dominant} is dominant and the allele for {recessive} is recessive."
        for alleles, right, wrong in (
            ("two dominant alleles", dominant, recessive),
            ("one dominant and one recessive allele", dominant, recessive),
            ("two recessive alleles", recessive, dominant),
            ("only recessive alleles", recessive, dominant),
        ):
            stem = f"{start(organism)} with {alleles} have"
            yield Question("gene", f"{organism} {pair}", stem, right, (wrong,), hint)


def _attraction() -> Iterator[Question]:
    answers = ("attract each other", "repel each other")
    for body in BODIES:
        for first, second in combinations(COLORS, 2):
            same = digest("attract", body, first, second) % 2
            pair = f"the {first} {body} and the {second} {body}"
            state = SAME[same][0 if body == "magnet" else 1]
            hint = f"{start(pair)} {state}."
            yield Question("attract", hint, start(pair), answers[same], (answers[1 - same],), hint)


def questions() -> Iterator[Question]:
    yield from _chains()
    yield from _genes()
    yield from _attraction()
