"""One- and two-step word problems with whole-number answers: the mini counterpart of GSM8K.

    {"question": "Ben has 7 coins. He gets 5 more. How many coins does Ben have now?",
     "answer": "Ben now has 7 + 5 = <<7+5=12>>12 coins.\\n#### 12"}

Kind and numbers of a problem decide its split, so it never returns in another split in another story.
"""

from __future__ import annotations

from collections.abc import Iterator

from hiplora.mini.draw import Draw, split_of
from hiplora.mini.problems.templates import NOUNS, PEOPLE, Template, templates

ITEMS = {"test": 300, "validation": 300, "train": 1800}  # at most
SHARES = {"test": 0.2, "validation": 0.2}
ATTEMPTS = 1500  # draws per template; most templates run out of new numbers before


def _words(template: Template, draw: Draw) -> dict[str, str]:
    (name, he), (other, _) = draw.sample(PEOPLE, 2)
    item = draw.pick(NOUNS[template.nouns])
    return {"name": name, "other": other, "he": he, "He": he.capitalize(), "item": item}


def _row(template: Template, numbers: dict[str, int]) -> dict[str, str] | None:
    solved = template.solve(numbers)
    if solved is None:
        return None
    draw = Draw("problem", template.text, *numbers.values())
    words = _words(template, draw) | {letter: str(number) for letter, number in numbers.items()}
    lines = [text.format(calc=calc, **words) for (_, text), (calc, _) in zip(template.steps, solved, strict=True)]
    return {"question": template.text.format(**words), "answer": "\n".join([*lines, f"#### {solved[-1][1]}"])}


def _of(template: Template, split: str) -> Iterator[dict[str, str]]:
    """Problems of one template, each with numbers not used before."""
    draw = Draw("numbers", template.text)
    seen: set[tuple[int, ...]] = set()
    for _ in range(ATTEMPTS):
        numbers = {letter: draw.pick(values) for letter, values in template.numbers.items()}
        key = tuple(numbers.values())
        # sorted, since 3 + 5 and 5 + 3 are one problem
        if key in seen or split_of("problem", template.kind, sorted(key), **SHARES) != split:
            continue
        seen.add(key)
        row = _row(template, numbers)
        if row is not None:
            yield row


def items(split: str) -> list[dict[str, str]]:
    """GSM8K's columns. Templates take turns until the split is full."""
    sources = [_of(template, split) for template in templates()]
    taken: list[dict[str, str]] = []
    while sources and len(taken) < ITEMS[split]:
        drawn = [(source, next(source, None)) for source in sources]
        sources = [source for source, row in drawn if row is not None]
        taken += [row for _, row in drawn if row is not None]
    return Draw("gsm8k", split).shuffled(taken[: ITEMS[split]])
