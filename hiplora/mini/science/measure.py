"""Questions about quantities: converting units, sensible estimates, comparing numbers given in a hint."""

from __future__ import annotations

from collections.abc import Iterator

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
        for tenth in (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 14, 16, 18, 21, 25, 32, 54, 79):
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
    for name in VESSELS:
        for low in range(5, 70, 5):
            for gap in (10, 15, 25):
                first, second = (low, low + gap) if digest(name, low, gap) % 2 else (low + gap, low)
                hint = f"The water in {name} A is at {first} degrees Celsius and the water in {name} B at {second}."
                choices = (f"{name} A", f"{name} B")
                hot = int(second > first)
                group = f"{name} {low} {gap}"
                yield Question(
                    "warm",
                    group,
                    "The water particles move faster in",
                    choices[hot],
                    (choices[1 - hot],),
                    hint,
                )
                yield Question(
                    "warm",
                    group,
                    "The water particles move more slowly in",
                    choices[1 - hot],
                    (choices[hot],),
                    hint,
                )


def _speeds() -> Iterator[Question]:
    for number in range(260):
        draw = Draw("speed", number)
        movers = draw.sample(MOVERS, 3)
        distances = draw.sample(range(12, 95), 3)
        parts = [f"the {mover} covers {d} kilometers" for mover, d in zip(movers, distances, strict=True)]
        hint = f"In the same time, {parts[0]}, {parts[1]} and {parts[2]}."
        order = sorted(range(3), key=lambda place: distances[place])
        for word, place in (("fastest", order[2]), ("slowest", order[0])):
            wrong = tuple(movers[other] for other in range(3) if other != place)
            yield Question("speed", f"speed {number}", f"The {word} of the three is the", movers[place], wrong, hint)


def _acids() -> Iterator[Question]:
    for entry, kind in things("ph"):
        thing, value = entry.split(":")
        wrong = tuple(other for other in ("acidic", "basic", "neutral") if other != kind)
        for stem in (f"{start(thing)} is", f"A chemist would call {thing}", "The substance is"):
            yield Question("acid", thing, stem, kind, wrong, f"{start(thing)} has a pH of {value}.")


def questions() -> Iterator[Question]:
    yield from _conversions()
    yield from _estimates()
    yield from _floating()
    yield from _warmth()
    yield from _speeds()
    yield from _acids()
