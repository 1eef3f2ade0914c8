"""Questions about quantities: converting units, sensible estimates, comparing numbers given in a hint."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from hiplora.mini.draw import Draw, digest
from hiplora.mini.english import start, with_article
from hiplora.mini.facts import things
from hiplora.mini.science.question import Question

UNITS = (
    ("distance", "kilometer", "meters", 1000),
    ("length", "meter", "centimeters", 100),
    ("length", "meter", "millimeters", 1000),
    ("length", "centimeter", "millimeters", 10),
    ("mass", "kilogram", "grams", 1000),
    ("mass", "gram", "milligrams", 1000),
    ("volume", "liter", "milliliters", 1000),
    ("time", "minute", "seconds", 60),
    ("time", "hour", "minutes", 60),
    ("time", "day", "hours", 24),
    ("time", "week", "days", 7),
    ("time", "year", "months", 12),
)
FACTORS = sorted({factor for *_, factor in UNITS})
OBJECTS = ("ball", "block", "cube", "toy boat", "bead", "disk", "ring", "cylinder", "figurine", "marble")
VESSELS = ("cup", "bowl", "jar", "bottle", "pot", "bucket", "beaker", "glass")
LIQUIDS = ("water", "milk", "tea", "juice")
WARM = ("hot", "warm", "boiling")
COLD = ("cold", "cool", "icy")
LABELS = "ABCDEFGH"
MOVERS = (
    "bus", "train", "truck", "cyclist", "car", "motorcycle", "boat", "runner", "horse", "tram", "van", "ferry", "skier",
)  # fmt: skip


def _conversions() -> Iterator[Question]:
    for quantity, unit, small, factor in UNITS:
        for number in range(2, 26):
            others = Draw("convert", unit, small, number).sample([f for f in FACTORS if f != factor], 3)
            stem = f"A {quantity} of {number} {unit}s is equal to"
            wrong = tuple(f"{number * other} {small}" for other in others)
            yield Question("convert", f"{number} {unit}", stem, f"{number * factor} {small}", wrong)


def _estimates() -> Iterator[Question]:
    for quantity in ("length", "volume", "mass"):
        units = list(dict.fromkeys(unit for _, unit in things(quantity)))
        for entry, unit in things(quantity):
            thing, number = entry.split(":")
            wrong = tuple(f"{number} {other}" for other in units if other != unit)
            for verb in ("is about", "is most likely"):
                yield Question("estimate", thing, f"The {quantity} of {thing} {verb}", f"{number} {unit}", wrong)


def _floating() -> Iterator[Question]:
    for name in OBJECTS:
        for tenth in (1, 2, 3, 4, 5, 6, 7, 8, 9, 21, 32, 43, 54, 65, 76, 79, 87, 98):
            right, wrong = ("float", "sink") if tenth < 10 else ("sink", "float")
            hint = f"{start(with_article(name))} has a density of {tenth / 10} grams per cubic centimeter."
            yield Question(
                "float",
                f"{name} {tenth}",
                f"When the {name} is put into water, it will",
                right,
                (wrong,),
                hint,
            )


def _warmth() -> Iterator[Question]:
    for vessel in VESSELS:
        for liquid, warm, cold in product(LIQUIDS, WARM, COLD):
            names = (f"{vessel} A", f"{vessel} B")
            first = digest("warm", vessel, liquid, warm, cold) % 2
            states = (cold, warm) if first else (warm, cold)
            hint = f"The {liquid} in {names[0]} is {states[0]} and the {liquid} in {names[1]} is {states[1]}."
            for word, place in (("faster", first), ("more slowly", 1 - first)):
                stem = f"The particles of the {liquid} move {word} in"
                yield Question("warm", hint, stem, names[place], (names[1 - place],), hint)


def _speeds() -> Iterator[Question]:
    for number in range(260):
        first, second, third = Draw("speed", number).sample(MOVERS, 3)
        hint = f"Over the same distance, the {first} arrives first, the {second} second and the {third} third."
        for word, right, wrong in (("fastest", first, third), ("slowest", third, first)):
            yield Question("speed", hint, f"The {word} of the three is the", right, (wrong, second), hint)


def _acids() -> Iterator[Question]:
    known = [(start(entry.split(":")[0]), int(entry.split(":")[1])) for entry, _ in things("ph")]
    known += [(f"Solution {letter}", value) for letter in LABELS for value in range(1, 14)]
    known += [(f"Mixture {letter}", 7) for letter in LABELS]
    for thing, value in known:
        kind = "acidic" if value < 7 else "neutral" if value == 7 else "basic"
        wrong = tuple(other for other in ("acidic", "basic", "neutral") if other != kind)
        for stem in (f"{thing} is", "The substance is"):
            yield Question("acid", f"{thing} {value}", stem, kind, wrong, f"{thing} has a pH of {value}.")


def questions() -> Iterator[Question]:
    yield from _conversions()
    yield from _estimates()
    yield from _floating()
    yield from _warmth()
    yield from _speeds()
    yield from _acids()
