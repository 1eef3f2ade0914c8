"""Links of the pages lead somewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RESULTS = [ROOT / "results" / page for page in ("mini/README.md", "mini/details.md", "local/README.md")]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.*")), *RESULTS]
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


def text(page: Path) -> str:
    """What a reader sees of a page or notebook, without blocks of code."""
    if page.suffix != ".ipynb":
        return FENCE.sub("", page.read_text())
    cells = json.loads(page.read_text())["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings have on the web."""
    headings = re.findall(r"^#+ (.*)$", text(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_resolve(page: Path) -> None:
    for link in LINK.findall(text(page)):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = page.parent / place if place else page
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in anchors(target), f"{target.name} has no heading for {link}"


def test_every_page_is_linked_from_the_first() -> None:
    linked = {ROOT / link.partition("#")[0] for link in LINK.findall(text(ROOT / "README.md"))}
    assert [page.name for page in sorted((ROOT / "docs").glob("*.*")) if page not in linked] == []
