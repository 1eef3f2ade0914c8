"""A page as the tests read it."""

from __future__ import annotations

from collections import Counter
from html.parser import HTMLParser


class Read(HTMLParser):
    """What a page holds: names, links, the text of every cell of a table with its link."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: Counter[str] = Counter()
        self.links: list[str] = []
        self.sources: list[str] = []
        self.rows: list[list[tuple[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.ids.update(filter(None, [found.get("id")]))
        self.sources += [value for name in ("src", "data", "action") if (value := found.get(name))]
        if tag in ("a", "link") and found.get("href"):
            self.links.append(str(found["href"]))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append(("", None))
        if tag == "a" and self.rows and self.rows[-1]:
            self.rows[-1][-1] = (self.rows[-1][-1][0], found.get("href"))

    def handle_data(self, data: str) -> None:
        self.words += data
        if self.rows and self.rows[-1]:
            text, link = self.rows[-1][-1]
            self.rows[-1][-1] = (text + data, link)
