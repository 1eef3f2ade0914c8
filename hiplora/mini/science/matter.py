"""Chemistry: formulas to be read, and facts about the elements to be recalled."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hiplora.mini.draw import Draw, by_hash
from hiplora.mini.english import start
from hiplora.mini.facts import elements, things
from hiplora.mini.science.question import Question

COMMON = 56  # elements above this atomic number are seldom met, apart from a few metals
FAMILIES = {
    "alkali metal": "alkali metals", "alkaline earth metal": "alkaline earth metals", "halogen": "halogens",
    "noble gas": "noble gases", "transition metal": "transition metals", "lanthanide": "lanthanides",
}  # fmt: skip


def atoms_of(formula: str) -> dict[str, int]:
    """ "C2H6" -> {"C": 2, "H": 6}."""
    return {symbol: int(count or 1) for symbol, count in re.findall(r"([A-Z][a-z]?)(\d*)", formula)}


def _atoms() -> Iterator[Question]:
    names = {element.symbol: element.name for element in elements()}
    for entry, formula in things("formula"):
        substance = entry.split(":")[0]
        for symbol, count in atoms_of(formula).items():
            present = sorted({n for n in atoms_of(formula).values() if n != count})
            near = [n for n in range(1, 7) if n != count and n not in present]
            wrong = (present + by_hash(near, formula, symbol))[:3]
            hint = f"The chemical formula of {substance} is {formula}."
            stem = f"The number of {names[symbol]} atoms in one molecule of {substance} is"
            yield Question("atoms", substance, stem, str(count), tuple(str(n) for n in wrong), hint)


def _pure() -> Iterator[Question]:
    for group, right, wrong in (
        ("formula", "a compound", "an element"),
        ("element formula", "an element", "a compound"),
    ):
        for entry, formula in things(group):
            substance = entry.split(":")[0]
            hint = f"The chemical formula of {substance} is {formula}."
            for stem in (f"{start(substance)} is", "This substance is"):
                yield Question("pure", substance, stem, right, (wrong,), hint)


def _recall() -> Iterator[Question]:
    known = [
        e
        for e in elements()
        if e.number <= COMMON or e.name in ("gold", "platinum", "mercury", "lead", "tungsten", "radon")
    ]
    for element in known:
        draw = Draw("element", element.name)
        others = [e for e in known if e is not element]
        alike = [e.symbol for e in others if e.symbol[0] == element.name[0].upper()]
        symbols = (draw.shuffled(alike) + draw.shuffled([e.symbol for e in others if e.symbol not in alike]))[:3]
        for stem in (
            f"The chemical symbol for {element.name} is",
            f"In chemistry, {element.name} is written as",
        ):
            yield Question("symbol", element.name, stem, element.symbol, tuple(symbols))
        near = sorted(others, key=lambda e: (abs(e.number - element.number), e.number))[:6]
        wrong = tuple(str(e.number) for e in draw.sample(near, 3))
        yield Question("number", element.name, f"The atomic number of {element.name} is", str(element.number), wrong)
        if element.kind in FAMILIES:
            families = [name for kind, name in FAMILIES.items() if kind != element.kind]
            wrong = tuple(draw.sample(families, 4))
            for stem in (
                f"The element {element.name} is one of the",
                f"{start(element.name)} belongs to the",
            ):
                yield Question("family", element.name, stem, FAMILIES[element.kind], wrong)


def questions() -> Iterator[Question]:
    yield from _atoms()
    yield from _pure()
    yield from _recall()
