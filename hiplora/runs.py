"""Inspect records: list them, show one with its predictions, compare two.

    python -m hiplora.runs                                   every record in results/mini, in the order they were made
    python -m hiplora.runs kind=score method=hip,lora        filter by any field: settings, results, device
    python -m hiplora.runs operator=ties method=hip          merges, by their operator
    python -m hiplora.runs 'gsm8k.acc>0.3' name='*s42'       numbers by < and >, texts with *
    python -m hiplora.runs 'made>2026-11-20' commit=1a81345  dates, and hashes by their beginning
                                                             (with = upper and lower case are the same)
    python -m hiplora.runs kind=train --columns training.lr,top_share      more columns
    python -m hiplora.runs --json                            every field of every record, for jq or pandas
    python -m hiplora.runs show 3f2a                         one record, by the beginning of its id;
                                                             where two match, 3f2a.cpu-bfloat16
    python -m hiplora.runs show 3f2a --predictions all       with every prediction instead of some
    python -m hiplora.runs diff 3f2a 91bc                    settings, numbers, and the items that flipped
    python -m hiplora.runs show 3f2a --results results/local data.root=DIR     prompts are read from the data

Nothing is changed, and no model is loaded.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports that need the suite
    from hiplora.suite import check_installed

    check_installed()

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from hiplora.errors import UserError, exit_status
from hiplora.report.runs import text
from hiplora.report.runs.fields import compared, resolve
from hiplora.report.runs.filters import select
from hiplora.report.runs.predictions import by_benchmark, flips
from hiplora.report.runs.prompts import Prompts, data_words
from hiplora.report.runs.shelf import Shelf
from hiplora.stages.record import Record

COMMANDS = {"show": 1, "diff": 2}  # number of records that each takes


def answer(words: argparse.Namespace) -> str:
    """The text to print for parsed arguments. Raises UserError."""
    shelf = Shelf(Path(words.results))
    command, *ids = words.words or [""]
    if command not in COMMANDS:
        return listed(shelf, words.words, words)
    count = COMMANDS[command]
    if len(ids) < count:
        example = " ".join(["3f2a", "91bc"][:count])
        raise UserError(
            f"{command} needs the id of {'a record' if count == 1 else 'two records'}: {command} {example}."
        )
    records, settings = [shelf.find(id) for id in ids[:count]], ids[count:]
    if words.json:
        return json.dumps(_shown(shelf, *records) if count == 1 else _diff(shelf, *records), indent=1, sort_keys=True)
    prompts = Prompts(data_words(shelf.folder, settings))
    if command == "show":
        return text.show(shelf, records[0], prompts, each=words.predictions)
    return text.diff(shelf, records[0], records[1], prompts, each=words.predictions)


def listed(shelf: Shelf, filters: Sequence[str], words: argparse.Namespace) -> str:
    """The list of records that pass the filters, as text or JSON."""
    found = select(shelf.fields, filters)
    if words.json:
        return json.dumps(found, indent=1)
    known = {name: None for fields in shelf.fields for name in fields}
    columns = [resolve(name, known) for name in words.columns.split(",") if name] if shelf.records else []
    return text.listing(shelf, found, columns)


def _shown(shelf: Shelf, record: Record) -> dict[str, object]:
    return {**record.model_dump(), "marks": shelf.marks(record), "predictions": shelf.samples(record)}


def _diff(shelf: Shelf, one: Record, two: Record) -> dict[str, object]:
    left, right = (by_benchmark(shelf.samples(record)) for record in (one, two))
    items = {name: vars(flips(left[name], right[name])) for name in left if name in right}
    return {"fields": compared(*(shelf.fields[shelf.records.index(r)] for r in (one, two))), "items": items}


def _count(typed: str) -> int | None:
    if typed == "all":
        return None
    if not typed.isdigit():
        raise argparse.ArgumentTypeError(f"{typed} is neither a number nor all")
    return int(typed)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m hiplora.runs``; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m hiplora.runs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", metavar="show|diff|FILTER", help="a command with ids, or filters")
    parser.add_argument("--results", default="results/mini", help="folder results/<data>")
    parser.add_argument("--columns", default="", help="further fields to list, separated by commas")
    parser.add_argument("--predictions", type=_count, default=2, help="how many of each kind: a number, or all")
    parser.add_argument("--json", action="store_true", help="print JSON")
    words = parser.parse_intermixed_args(argv)

    def command() -> int:
        print(answer(words))
        return 0

    return exit_status(command)


if __name__ == "__main__":
    sys.exit(main())
