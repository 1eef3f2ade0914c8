"""Questions that put a thing into a class: kinds of animals, states of matter, changes, forces …"""

from __future__ import annotations

from collections.abc import Iterator

from hiplora.mini.draw import Draw
from hiplora.mini.english import start, with_article
from hiplora.mini.facts import animals, things
from hiplora.mini.science.question import Question

STEMS = {
    "state": (
        "at room temperature, {} would be classified as a", "scientists would describe {} as a",
        "in science class, {} is described as a",
    ),
    "change": ("{} is an example of a", "{} is classified as a", "in science, {} is called a"),
    "conduct": ("{} is", "in an electric circuit, {} would be", "{} is classified as"),
    "force": ("{} is an example of", "the force used in {} is", "{} needs"),
    "trait": ("{} is", "{} is an example of", "in biology, {} is called"),
    "renew": ("{} is", "{} is an example of", "scientists call {}"),
}  # fmt: skip


def _plural(kind: str) -> str:
    return kind if kind == "fish" else f"{kind}s"


def _animals() -> Iterator[Question]:
    kinds = sorted({kind for _, kind in animals()})
    for name, kind in animals():
        wrong = Draw("animal", name).sample([other for other in kinds if other != kind], 3)
        noun = start(with_article(name))
        yield Question("animal", name, f"{noun} is a kind of", kind, tuple(wrong))
        for verb in ("is one of the", "belongs with the"):
            yield Question("animal", name, f"{noun} {verb}", _plural(kind), tuple(_plural(other) for other in wrong))


def _listed(topic: str, stems: tuple[str, ...]) -> Iterator[Question]:
    """One question per thing and stem; the wrong choices are the other classes of the list."""
    classes = list(dict.fromkeys(kind for _, kind in things(topic)))
    for thing, kind in things(topic):
        wrong = Draw(topic, thing).shuffled([other for other in classes if other != kind])[:4]
        for stem in stems:
            yield Question(topic, thing, start(stem.format(thing)), kind, tuple(wrong))


def questions() -> Iterator[Question]:
    yield from _animals()
    for topic, stems in STEMS.items():
        yield from _listed(topic, stems)
