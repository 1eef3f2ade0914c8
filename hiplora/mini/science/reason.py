"""Questions answered from a hint by a rule: food chains, dominant alleles, magnets and charges."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from hiplora.mini.draw import Draw
from hiplora.mini.english import listed, start, with_article
from hiplora.mini.facts import things
from hiplora.mini.science.question import Question

POLES = (
    ("north pole", "south pole"),
    ("south pole", "north pole"),
    ("north pole", "north pole"),
    ("south pole", "south pole"),
)
SIGNS = (
    ("positive", "negative"),
    ("negative", "positive"),
    ("positive", "positive"),
    ("negative", "negative"),
)
COLORS = ("red", "blue", "green", "yellow", "black", "white", "silver", "orange")
BODIES = ("ball", "balloon", "rod", "bead", "plate", "foil")


def _chains() -> Iterator[Question]:
    for chain, place in things("chain"):
        links = chain.split(">")
        hint = f"In {with_article(place)} food chain, {listed([f'{b} eat {a}' for a, b in pairwise(links)])}."
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
        letter = dominant[0].upper()
        alleles = f"the allele for {dominant} ({letter}) is dominant over the allele for {recessive} ({letter.lower()})"
        for genotype in (letter * 2, letter + letter.lower(), letter.lower() * 2):
            right, wrong = (recessive, dominant) if genotype.islower() else (dominant, recessive)
            hint = f"In {organism}, {alleles}."
            yield Question(
                "gene",
                f"{organism} {pair}",
                f"{start(organism)} with the genotype {genotype} have",
                right,
                (wrong,),
                hint,
            )


def _attraction() -> Iterator[Question]:
    answers = ("attract each other", "repel each other")
    for number in range(120):
        draw = Draw("attract", number)
        first, second = draw.sample(COLORS, 2)
        same = number % 2
        pair = (
            draw.pick(POLES[2:] if same else POLES[:2])
            if number % 4 < 2
            else draw.pick(SIGNS[2:] if same else SIGNS[:2])
        )
        if number % 4 < 2:
            hint = f"The {pair[0]} of the {first} magnet faces the {pair[1]} of the {second} magnet."
            stem, group = f"The {first} magnet and the {second} magnet", f"magnet {hint}"
        else:
            body = draw.pick(BODIES)
            hint = f"The {first} {body} has a {pair[0]} charge and the {second} {body} has a {pair[1]} charge."
            stem, group = f"The {first} {body} and the {second} {body}", f"charge {hint}"
        yield Question("attract", group, stem, answers[same], (answers[1 - same],), hint)


def questions() -> Iterator[Question]:
    yield from _chains()
    yield from _genes()
    yield from _attraction()
