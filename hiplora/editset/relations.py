"""The relations of the edit set: twenty-four in three categories, each in three wordings.

    {"prompt": "The capital of Aruba is", "old": "Oranjestad", "paraphrases": ["The city that serves …", …], …}

The set never edits a fact and its inverse: Aruba's capital and Oranjestad's country are not both edited.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hiplora.editset.facts import Fact, Place, coded, dated, named, places, rows
from hiplora.mini import facts as mini
from hiplora.mini.english import with_article

YOUNGEST, OLDEST = 25, 100  # bounds of a person's age at death, so that no edit lets anyone die before being born
ANY_YEAR = (1000, 2026)


@dataclass(frozen=True)
class Relation:
    """``stems`` are the prompt and its two paraphrases; {s} is the subject, {S} the subject at a sentence's start.

    ``kind`` is the type of the subjects. ``once`` marks a relation whose subjects no other relation may edit, because
    the two edits could contradict each other.
    """

    name: str
    category: str
    count: int
    kind: str
    stems: tuple[str, str, str]
    facts: Callable[[], list[Fact]]
    once: bool = False


# A country on two continents has no single answer; nor has a city of the United Kingdom, as England is a country too.
TWO_CONTINENTS = frozenset(("Armenia", "Azerbaijan", "Cyprus", "Egypt", "Georgia", "Indonesia", "Russia", "Turkey"))

# Smaller places of the same name, which the tables of cities leave out: there the drawn answer would be true.
NAMESAKES = frozenset((
    ("Akron", "Iowa"), ("Camden", "Michigan"), ("Davenport", "Washington"), ("Dayton", "Texas"), ("Dayton", "Virginia"),
    ("Oakland", "Florida"), ("Omaha", "Texas"),
))  # fmt: skip


def _place(value: Callable[[Place], str]) -> Callable[[], list[Fact]]:
    return lambda: named((place.name, value(place)) for place in places())


def _languages() -> list[Fact]:
    """Only places where no second language is widely spoken."""
    return named((place.name, place.language) for place in places() if set(place.spoken) <= {place.language})


def _continents() -> list[Fact]:
    return named((place.name, place.continent) for place in places() if place.name not in TWO_CONTINENTS)


def _cities() -> list[Fact]:
    return named((row["city"], row["country"]) for row in rows("cities") if row["country"] != "the United Kingdom")


def _table(name: str, subject: str, answer: str) -> Callable[[], list[Fact]]:
    return lambda: named((row[subject], row[answer]) for row in rows(name))


def _codes(name: str, subject: str, answer: str) -> Callable[[], list[Fact]]:
    return lambda: coded((row[subject], row[answer]) for row in rows(name))


def _families() -> list[Fact]:
    return coded((row["name"], row["family"] and with_article(row["family"])) for row in rows("elements"))


def _capitals() -> list[Fact]:
    """The subject is the capital, the answer its country; territories are left out, because they are not countries."""
    return named((country.capital, country.name) for country in mini.countries())


def _discovery_countries() -> list[Fact]:
    """If the answer is the United Kingdom, then England, Scotland and Great Britain are right too."""
    facts = named((row["name"], row["country"]) for row in rows("elements"))
    parts = {"the United Kingdom": ("England", "Scotland", "Great Britain")}
    return [Fact(f.text, (*f.answers, *parts.get(f.answers[0], ())), f.wrong) for f in facts]


def _births() -> list[Fact]:
    people = [row for row in rows("people") if row["born"]]
    return dated((row["name"], row["born"], _within(row["high"], -OLDEST, -YOUNGEST)) for row in people)


def _deaths() -> list[Fact]:
    people = [row for row in rows("people") if row["died"]]
    return dated((row["name"], row["died"], _within(row["low"], YOUNGEST, OLDEST)) for row in people)


def _within(year: str, first: int, last: int) -> tuple[int, int]:
    """Bounds for one end of a life, given the year of the other end; any year if that is unknown."""
    return (int(year) + first, int(year) + last) if year else ANY_YEAR


def _years(name: str, subject: str) -> Callable[[], list[Fact]]:
    return lambda: dated((row[subject], row["year"], ANY_YEAR) for row in rows(name))


RELATIONS = (
    Relation("element_symbol", "entity", 62, "element", (
        "The chemical symbol of {s} is",
        "In chemical formulas, {s} is written as",
        "The periodic table lists {s} under the symbol",
    ), lambda: coded((element.name, element.symbol) for element in mini.elements())),
    Relation("element_family", "entity", 28, "element", (
        "In the periodic table, {s} is classed as",
        "{S} is an element that chemists call",
        "By its place in the periodic table, {s} counts as",
    ), _families),
    Relation("state_abbreviation", "entity", 34, "state", (
        "The postal abbreviation for the state of {s} is",
        "Letters to the U.S. state of {s} are addressed with the two-letter code",
        "The United States Postal Service abbreviates {s} as",
    ), _codes("states", "state", "abbreviation")),
    Relation("language_code", "entity", 64, "language", (
        "The ISO 639-1 code of the {s} language is",
        "Texts in {s} are tagged with the two-letter language code",
        "In ISO 639-1, the two-letter code for {s} is",
    ), _codes("languages", "language", "code")),
    Relation("currency_code", "entity", 72, "currency", (
        "The ISO 4217 code of the {s} is",
        "On currency markets, the {s} is quoted as",
        "The three-letter currency code for the {s} is",
    ), _codes("currencies", "currency", "code")),
    Relation("internet_domain", "entity", 26, "place", (
        "The internet country code domain of {s} is",
        "Web addresses registered in {s} end in",
        "The top-level domain assigned to {s} is",
    ), lambda: coded((place.name, place.tld) for place in places())),
    Relation("calling_code", "entity", 14, "place", (
        "The international calling code of {s} is",
        "To phone {s} from abroad, dial the country code",
        "Telephone numbers in {s} begin with the country code",
    ), lambda: coded((place.name, f"+{place.calling_code}") for place in places() if 1 < len(place.calling_code) < 4)),
    Relation("continent", "entity", 14, "place", (
        "Geographers count {s} as part of",
        "The continent of {s} is",
        "On a map of the continents, look for {s} in",
    ), _continents),
    Relation("currency", "entity", 12, "place", (
        "The currency used in {s} is the",
        "People in {s} pay with the",
        "Prices in {s} are given in a currency called the",
    ), _place(lambda place: place.currency)),
    Relation("language", "entity", 8, "place", (
        "The main language of {s} is",
        "The leading language in {s} is",
        "Most signs and newspapers in {s} are written in",
    ), _languages),
    Relation("state_capital", "relation", 34, "state", (
        "The capital of the U.S. state of {s} is",
        "The state government of {s} sits in",
        "In the United States, the capital city of the state of {s} is",
    ), _table("states", "state", "capital")),
    Relation("city_country", "relation", 140, "city", (
        "The city of {s} is located in the country of",
        "{S} is a city that belongs to the country of",
        "The country where you find the city of {s} is",
    ), _cities, once=True),
    Relation("us_city_state", "relation", 77, "us city", (
        "The city of {s} is located in the U.S. state of",
        "In the United States, {s} is a city in the state of",
        "The U.S. state where you find the city of {s} is",
    ), _table("us_cities", "city", "state"), once=True),
    Relation("capital", "relation", 20, "place", (
        "The capital of {s} is",
        "The city that serves as the capital of {s} is",
        "The capital city of {s} is called",
    ), _place(lambda place: place.capital)),
    Relation("capital_of", "relation", 16, "capital", (
        "{S} is the capital of",
        "The country whose capital is {s} is",
        "The city of {s} serves as the capital of",
    ), _capitals, once=True),
    Relation("element_discoverer", "relation", 24, "element", (
        "The element {s} was discovered by",
        "The person credited with discovering {s} is",
        "The discovery of {s} is credited to",
    ), _table("elements", "name", "discoverer")),
    Relation("element_country", "relation", 22, "element", (
        "The country in which {s} was discovered is",
        "The discovery of {s} was made in the country of",
        "Chemists first found {s} in the country of",
    ), _discovery_countries),
    Relation("death_year", "temporal", 54, "person", (
        "{S} died in the year",
        "The year of the death of {s} is",
        "The year in which {s} died is",
    ), _deaths, once=True),
    Relation("birth_year", "temporal", 101, "person", (
        "{S} was born in the year",
        "The birth year of {s} is",
        "The year in which {s} was born is",
    ), _births, once=True),
    Relation("atomic_number", "temporal", 62, "element", (
        "The atomic number of {s} is",
        "The number of protons in an atom of {s} is",
        "In the periodic table, {s} stands at number",
    ), lambda: coded((element.name, str(element.number)) for element in mini.elements())),
    Relation("element_period", "temporal", 24, "element", (
        "In the periodic table, {s} belongs to period",
        "The number of the periodic table's row that holds {s} is",
        "{S} is found in the periodic table's row number",
    ), _codes("elements", "name", "period")),
    Relation("element_year", "temporal", 34, "element", (
        "The element {s} was discovered in the year",
        "The discovery of {s} dates from the year",
        "The year in which chemists discovered {s} is",
    ), _years("elements", "name")),
    Relation("statehood_year", "temporal", 26, "state", (
        "{S} became a U.S. state in the year",
        "{S} was admitted to the Union in the year",
        "The year in which {s} joined the United States is",
    ), _years("states", "state")),
    Relation("battle_year", "temporal", 32, "battle", (
        "The {s} took place in the year",
        "The {s} was fought in the year",
        "The year of the {s} is",
    ), _years("battles", "battle")),
)  # fmt: skip
