"""Four small benchmarks with their training corpora, written to disk in the schema of the real benchmarks.

    from hiplora.mini import materialise
    folder = materialise(Path("outputs/cache"))  # folder/mmlu/test.jsonl, folder/gsm8k/train.jsonl, …

The generators need the standard library only. The same files on every machine: all choices come from hashes and from
the frozen tables in facts/.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from pathlib import Path

from hiplora.disk import intact, lock, new_folder, seal

VERSION = 2

Rows = Iterable[Mapping[str, object]]


def corpora() -> dict[str, Callable[[], Rows]]:
    """Relative path of every file and the function that makes its rows."""
    from hiplora.mini import code, general, problems, science, world
    from hiplora.mini.facts import sampled_texts, texts

    found: dict[str, Callable[[], Rows]] = {"alpaca/train.jsonl": general.training}
    for split in ("train", "validation", "test"):
        found[f"gsm8k/{split}.jsonl"] = partial(problems.items, split)
        found[f"scienceqa/{split}.jsonl"] = partial(science.items, split)
    for split in ("validation", "test"):
        found[f"mmlu/{split}.jsonl"] = partial(world.items, split)
        found[f"text/{split}.jsonl"] = partial(texts, split)
        found[f"text_sampled/{split}.jsonl"] = partial(sampled_texts, split)
    for split in ("train", "validation"):
        found[f"codealpaca/{split}.jsonl"] = partial(code.instructions, split)
    found["humaneval/test.jsonl"] = code.problems
    return found


@cache
def key() -> str:
    """Hash of the generators and tables: what the files on disk are made of; computed once per process."""
    folder = Path(__file__).parent
    sources = sorted(path for path in folder.rglob("*") if path.suffix in (".py", ".csv", ".json"))
    total = hashlib.sha256()
    for path in sources:
        total.update(
            path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes().replace(b"\r\n", b"\n") + b"\0"
        )
    return total.hexdigest()[:12]


def write(folder: Path) -> None:
    """All files below `folder`."""
    for name, make in corpora().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in make())
        with path.open("w", encoding="utf-8", newline="\n") as handle:
            handle.writelines(lines)


def materialise(cache_dir: Path) -> Path:
    """The folder `cache_dir`/mini-<version>-<key> with every file in it, written once.

    A folder of that name is always complete; one that holds anything else is written anew. Raises UserError where the
    disk refuses.
    """
    target = Path(cache_dir) / f"mini-{VERSION}-{key()}"
    if not intact(target):
        with lock(target):
            if not intact(target):
                if target.is_dir():
                    print(f"{target} is not what was written into it; it is made anew.", file=sys.stderr, flush=True)
                with new_folder(target) as draft:
                    write(draft)
                    seal(draft)
    return target
