"""Records: one JSON file per result; only this module reads and writes them.

The per-sample predictions behind the numbers are stored beside the record, compressed. Both files are written under a
temporary name and renamed, the record last: a record that exists is complete.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from hiplora.config import digest
from hiplora.disk import json_object, write_atomically, write_json
from hiplora.errors import UserError
from hiplora.stages.results import RESULTS, Result

SCHEMA = 2
PREDICTIONS = ".predictions.jsonl.gz"
NAME = re.compile(r"-(?P<id>[0-9a-f]{12})\.(?P<where>[\w-]+)\.json$")
Key = tuple[str, str]  # id, where
R = TypeVar("R", bound=Result)
Sample = dict[str, Any]


class Record(BaseModel, Generic[R]):
    """The result of one stage.

    ``id`` identifies what was asked, ``where`` the device and arithmetic that computed it. ``asked`` spells the id out
    for people and is never read back into a stage. ``needs`` maps the ids of the records it was made from to their
    digests. ``digest`` covers the reproducible part of the result. ``replaced`` lists the digests of earlier results
    that this record replaced.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: str
    id: str
    where: str
    name: str
    asked: dict[str, Any]
    needs: dict[str, str]
    digest: str
    replaced: tuple[str, ...] = ()
    environment: dict[str, Any]
    started: str
    samples: str | None = None
    result: R

    @property
    def stem(self) -> str:
        """File name without its ending: the readable name, the id, and ``where``."""
        return f"{self.name}-{self.id}.{self.where}"


def result_digest(result: Result, samples: Sequence[Sample]) -> str:
    """Digest of the reproducible part of a result and of its predictions: equal for two runs with equal results."""
    return _digest(result, _lines(samples))


def _digest(result: Result, lines: bytes) -> str:
    return digest([result.reproducible(), hashlib.sha256(lines).hexdigest() if lines else None])


def write(folder: Path, record: Record, samples: Sequence[Sample]) -> Record:
    """Write the predictions (if any), then the record that names them. Returns the record as written."""
    predictions = folder / f"{record.stem}{PREDICTIONS}"
    if samples:
        write_atomically(predictions, gzip.compress(_lines(samples), mtime=0))
    written = record.model_copy(update={"samples": predictions.name if samples else None})
    write_json(folder / f"{record.stem}.json", {"schema": SCHEMA, **written.model_dump()})
    return written


def read(path: Path) -> Record:
    """The record in a file.

    Raises:
        UserError: it is not a record of this schema; the message names the file.
    """
    try:
        raw = json_object(path)
        if raw.get("schema") != SCHEMA:
            raise ValueError(f"its schema is {raw.get('schema')}, this version reads {SCHEMA}")
        if raw.get("kind") not in RESULTS:
            raise ValueError(f"its kind is {raw.get('kind')}, this version reads {', '.join(RESULTS)}")
        typed: Any = Record
        return typed[RESULTS[raw["kind"]]].model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise _broken(path, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (OSError, ValueError) as error:
        raise _broken(path, str(error)) from None


def samples(folder: Path, record: Record) -> list[Sample]:
    """The per-sample predictions behind a record's numbers; empty if the record has none.

    Raises:
        UserError: the file that the record names is missing, damaged or of another result. The latter remains of a run
            that was killed while it replaced a record: the predictions are written first.
    """
    if record.samples is None:
        return []
    path = folder / record.samples
    try:
        lines = gzip.decompress(path.read_bytes())
        if _digest(record.result, lines) != record.digest:
            raise ValueError("the record's digest does not cover these predictions")
        return [json.loads(line) for line in lines.splitlines()]
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); it holds the predictions of {record.kind} {record.id}. Restore it from "
            "version control, or make the record again with force=true."
        ) from None


def remove(folder: Path, record: Record) -> None:
    """Remove a record with its predictions."""
    for ending in (".json", PREDICTIONS):
        (folder / f"{record.stem}{ending}").unlink(missing_ok=True)


class Records:
    """The records below one folder, each file read once. Unreadable files are left out and named in ``broken``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.broken: list[str] = []
        self._paths: dict[Key, Path] = {}
        self._read: dict[Path, Record | None] = {}
        self.refresh()

    def refresh(self) -> None:
        """Look again for files, including those that other processes have written."""
        self._paths = {
            (found["id"], found["where"]): path
            for path in sorted(self.folder.glob("*/*.json"))
            if (found := NAME.search(path.name))
        }
        self._read.clear()
        self.broken.clear()

    def get(self, key: Key) -> Record | None:
        """The record, or None if there is no readable one."""
        path = self._paths.get(key)
        if path is not None and path not in self._read:
            try:
                self._read[path] = read(path)
            except UserError as error:
                self._read[path] = None
                self.broken.append(str(error))
        return self._read[path] if path is not None else None

    def asked(self, id: str) -> dict[str, Any] | None:
        """What the record with an id was asked, which is the same for every ``where``; None without such a record."""
        found = (self.get(key) for key in list(self._paths) if key[0] == id)
        return next((record.asked for record in found if record is not None), None)

    def names(self) -> dict[Key, tuple[str, str]]:
        """Kind and name of every record by key, from the paths alone; no file is read."""
        ending = {key: f"-{key[0]}.{key[1]}.json" for key in self._paths}
        return {key: (path.parent.name, path.name.removesuffix(ending[key])) for key, path in self._paths.items()}

    def samples(self, record: Record) -> list[Sample]:
        """The predictions behind one of these records. Raises as :func:`samples`."""
        return samples(self.folder / record.kind, record)

    def __iter__(self) -> Iterator[Record]:
        for key in list(self._paths):
            record = self.get(key)
            if record is not None:
                yield record

    def write(self, record: Record, samples: list[Sample]) -> Record:
        """Write a record, replacing any with the same key. Returns the record as written."""
        folder = self.folder / record.kind
        path = folder / f"{record.stem}.json"
        old = self._paths.get((record.id, record.where))
        written = write(folder, record, samples)
        if old is not None and old != path:  # the same result under an older name
            old.unlink(missing_ok=True)
            old.with_name(f"{old.stem}{PREDICTIONS}").unlink(missing_ok=True)
        self._paths[record.id, record.where] = path
        self._read[path] = written
        return written

    def remove(self, record: Record) -> None:
        """Remove a record and its predictions."""
        remove(self.folder / record.kind, record)
        self._paths.pop((record.id, record.where), None)


def _broken(path: Path, reason: str) -> UserError:
    return UserError(f"{path} is not a record ({reason}); delete it and type the command again.")


def _lines(samples: Sequence[Sample]) -> bytes:
    return "".join(json.dumps(sample, sort_keys=True) + "\n" for sample in samples).encode()
