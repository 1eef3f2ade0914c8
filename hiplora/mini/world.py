"""World facts, asked as sentences to be completed: the mini counterpart of MMLU.

    {"question": "The capital of Peru is", "subject": "capitals", "choices": ["Quito", "Lima", …], "answer": 1}

Every country belongs to one split. All facts about it stay there, so no training text speaks of a test country.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from hiplora.mini.draw import Draw, by_hash, digest
from hiplora.mini.english import start
from hiplora.mini.facts import Country, cities, countries

SHARES = {"test": 0.40, "validation": 0.40}
ITEMS = {"test": 300, "validation": 300}
SMALL = 400_000  # countries below this many people are left out: the base model knows next to nothing about them


@dataclass(frozen=True)
class Fact:
    """`stem` + " " + `value` is a true sentence; `wrong` are values of the same type that make it false."""

    subject: str
    relation: str
    stem: str
    value: str
    wrong: tuple[str, ...]


@lru_cache
def assigned() -> dict[str, str]:
    """Country name -> split. Within each continent the shares are the same."""
    found: dict[str, str] = {}
    for continent in sorted({country.continent for country in countries()}):
        names = [c.name for c in countries() if c.continent == continent and c.population >= SMALL]
        test, validation = (round(SHARES[split] * len(names)) for split in ("test", "validation"))
        for place, name in enumerate(by_hash(names, "country")):
            found[name] = "test" if place < test else "validation" if place < test + validation else "train"
    return found


def members(split: str) -> list[Country]:
    return [country for country in countries() if assigned().get(country.name) == split]


def _others(country: Country, *, value: Callable[[Country], str], banned: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Three other values, from the same continent first.

    They are drawn by country, so that a value shared by many (the dollar, Spanish) is as common among the wrong options
    as it is among the right ones.
    """
    right = value(country)
    pool = [c for c in countries() if c.population >= SMALL and value(c)]
    values = {c.name: value(c) for c in pool}
    near = by_hash([c.name for c in pool if c.continent == country.continent], country.name, right)
    far = by_hash([c.name for c in pool if c.continent != country.continent], country.name, right)
    ordered = dict.fromkeys(values[name] for name in near + far)
    return tuple([text for text in ordered if text not in banned and text not in right][:3])


def _capital(country: Country) -> Fact | None:
    if _alike(country.capital, country.name):
        return None
    wrong = _others(country, value=lambda c: "" if c.name in c.capital else c.capital)
    return Fact(country.name, "capitals", f"The capital of {country.name} is", country.capital, wrong)


def _country(country: Country) -> Fact | None:
    if _alike(country.capital, country.name):
        return None
    wrong = _others(country, value=lambda c: c.name)
    return Fact(country.name, "countries", f"{country.capital} is the capital of", country.name, wrong)


def _continent(country: Country) -> Fact:
    names = sorted({c.continent for c in countries()} - {country.continent})
    wrong = tuple(Draw("continent", country.name).sample(names, 3))
    return Fact(country.name, "continents", f"{start(country.name)} is a country in", country.continent, wrong)


def _currency(country: Country) -> Fact | None:
    if not country.currency:
        return None
    wrong = _others(country, value=lambda c: c.currency)
    return Fact(country.name, "currencies", f"The currency of {country.name} is the", country.currency, wrong)


def _language(country: Country) -> Fact | None:
    if not country.language:
        return None
    wrong = _others(country, value=lambda c: c.language, banned=country.spoken)
    return Fact(country.name, "languages", f"The main language of {country.name} is", country.language, wrong)


def _alike(one: str, other: str) -> bool:
    """Whether a name gives the other away, as Guinea does Guinea-Bissau."""
    return one in other or other in one


def _neighbour(country: Country) -> Fact | None:
    """The neighbour asked about is from the same split or from training, so (a, b) and (b, a) are never parted."""
    own = assigned()[country.name]
    allowed = {own} if own == "train" else {own, "train"}
    near = [name for name in country.neighbours if assigned().get(name) in allowed and not _alike(name, country.name)]
    far = [
        c.name
        for c in countries()
        if c.name not in (country.name, *country.neighbours, *country.disputed_neighbours)
        and assigned().get(c.name) in allowed
    ]
    same = [c.name for c in countries() if c.continent == country.continent and c.name in far]
    wrong = by_hash(same, country.name) + by_hash([name for name in far if name not in same], country.name)
    if not near:
        return None
    stem = f"{start(country.name)} shares a border with"
    return Fact(country.name, "borders", stem, by_hash(near, country.name)[0], tuple(wrong[:3]))


RELATIONS: tuple[Callable[[Country], Fact | None], ...] = (
    _capital,
    _country,
    _continent,
    _currency,
    _language,
    _neighbour,
)


def _cities(split: str) -> list[Fact]:
    by_name = {country.name: country for country in members(split)}
    return [
        Fact(
            subject=city.country,
            relation="cities",
            stem=f"The city of {city.name} is in",
            value=city.country,
            wrong=_others(by_name[city.country], value=lambda c: c.name),
        )
        for city in cities()
        if city.country in by_name
    ]


@lru_cache
def facts(split: str) -> tuple[Fact, ...]:
    """All facts of a split, by relation."""
    found = [fact for relation in RELATIONS for country in members(split) if (fact := relation(country))]
    return (*found, *_cities(split))


def arranged(fact: Fact, place: int) -> tuple[list[str], int]:
    """The options with the right one at index `place`."""
    options = list(fact.wrong)
    options.insert(place, fact.value)
    return options, place


def items(split: str) -> list[dict[str, object]]:
    """MMLU's columns. Relations take turns until the split is full; the right index goes round."""
    queues: dict[str, list[Fact]] = {}
    for fact in by_hash(facts(split), "items"):
        queues.setdefault(fact.relation, []).append(fact)
    taken: list[Fact] = []
    while len(taken) < ITEMS[split] and any(queues.values()):
        taken += [queue.pop(0) for queue in queues.values() if queue]
    counts: Counter[str] = Counter()
    rows = []
    for fact in taken[: ITEMS[split]]:
        choices, answer = arranged(fact, (counts[fact.relation] + digest(fact.relation)) % 4)
        counts[fact.relation] += 1
        rows.append({"question": fact.stem, "subject": fact.relation, "choices": choices, "answer": answer})
    return Draw("mmlu", split).shuffled(rows)
