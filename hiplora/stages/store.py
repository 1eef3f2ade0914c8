"""Finds records and artefacts and tells which records are current; no other module knows paths in results/, outputs/.

Records under ``results/<data>/records`` are tracked: tables show them. A tracked record is replaced only by a forced
run, or if it is stale. If the artefact of a tracked record is gone, it is *restored*: made again and recorded under
``outputs/records``, where runs look first. Digests in the JSON files alone tell what a record was made from.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from hiplora.disk import json_object
from hiplora.stages.base import Stage
from hiplora.stages.record import Key, Record, Records, Sample

DIGEST = "digest.json"  # inside an artefact's folder: which result it is, and the SHA-256 of its files


class Status(IntEnum):
    """Whether a record was made from results that are current, from a restored artefact, or from a replaced result."""

    GOOD = 0
    RESTORED = 1
    STALE = 2


@dataclass(frozen=True)
class Places:
    """The folders of a run: ``outputs``, which can be deleted at any time, and ``results``, which is results/<data>."""

    outputs: Path
    results: Path

    @property
    def tracked(self) -> Path:
        """Folder of the tracked records, one folder inside per kind."""
        return self.results / "records"

    @property
    def local(self) -> Path:
        """Folder of the records of restored artefacts."""
        return self.outputs / "records" / self.results.name

    @property
    def texts(self) -> Path:
        """Folder with the text of lm-eval's items, which records do not hold; free to delete."""
        return self.outputs / "texts"

    def artefact(self, id: str, where: str) -> Path:
        """Folder of a stage's artefact, a trained adapter; complete if it exists."""
        return self.outputs / "adapters" / f"{id}.{where}"

    def checkpoints(self, id: str, where: str) -> Path:
        """Folder of the resumable checkpoints of one stage; removed when its record is written."""
        return self.outputs / "checkpoints" / f"{id}.{where}"

    def parts(self, id: str, where: str, made_by: str) -> Path:
        """File of a stage's finished parts; ``made_by`` is the digest of code and needs that made them."""
        return self.outputs / "parts" / f"{id}.{where}.{made_by}.jsonl"

    def lock(self, id: str, where: str) -> Path:
        """Lock file that lets only one process at a time make a record."""
        return self.outputs / "locks" / f"{id}.{where}"


class Store:
    """Tracked and local records together; ``local=False`` looks at tracked ones alone, as tables do."""

    def __init__(self, places: Places, *, local: bool = True) -> None:
        self.places = places
        self.tracked = Records(places.tracked)
        self.local = Records(places.local) if local else None

    def refresh(self) -> None:
        """Look again for records, including those that other processes have written."""
        self.tracked.refresh()
        if self.local is not None:
            self.local.refresh()

    def current(self, key: Key) -> Record | None:
        """The record that runs use: the local one if there is one, else the tracked one."""
        return (self.local.get(key) if self.local is not None else None) or self.tracked.get(key)

    def samples(self, record: Record) -> list[Sample]:
        """The predictions behind a tracked or local record.

        Raises:
            UserError: the file is missing or damaged.
        """
        local = self.local is not None and self.local.get((record.id, record.where)) == record
        return (self.local if local and self.local is not None else self.tracked).samples(record)

    def status(self, record: Record) -> Status:
        """The status of a record, by the digests of its needs and, recursively, of theirs."""
        worst = Status.GOOD
        for id, digest in record.needs.items():
            need = self.current((id, record.where))
            if need is None:
                worst = max(worst, Status.RESTORED)  # no record has this digest any more
            elif digest == need.digest:
                worst = max(worst, self.status(need))
            else:
                worst = max(worst, Status.STALE if digest in need.replaced else Status.RESTORED)
        return worst

    def usable(self, stage: Stage) -> Record | None:
        """A record that a run can reuse for a stage, or None; its artefact may be missing."""
        key = (stage.id, stage.where())
        local = self.local.get(key) if self.local is not None else None
        candidates = (local, self.tracked.get(key))
        return next((record for record in candidates if record is not None and self._stands(record)), None)

    def _stands(self, record: Record) -> bool:
        """Whether all that a record was made from is unchanged here: not replaced, nor restored with another result."""
        for id, digest in record.needs.items():
            key = (id, record.where)
            need = self.current(key)
            if need is None:
                continue
            if digest == need.digest:
                if not self._stands(need):
                    return False
            elif digest in need.replaced or (self.local is not None and self.local.get(key) is not None):
                return False
        return True

    def artefact(self, record: Record) -> Path | None:
        """The folder of a record's artefact; None if it is missing or belongs to another result."""
        folder = self.places.artefact(record.id, record.where)
        try:
            there = json_object(folder / DIGEST)
        except (OSError, ValueError):
            return None
        return folder if there.get("tensors") == record.result.reproducible() else None

    def write(self, record: Record, samples: list[Sample], *, force: bool) -> Record:
        """Write a new record to the tracked or the local folder. Returns the record that is current from now on.

        A tracked record is replaced only with ``force``, or if it is stale. Otherwise the new record is local; if it
        equals the tracked one, nothing is written.
        """
        self.refresh()  # a process with the same results and other outputs may have recorded the stage meanwhile
        key = (record.id, record.where)
        tracked, local = self.tracked.get(key), self.local.get(key) if self.local is not None else None
        if tracked is None or force or self.status_of_tracked(tracked) is Status.STALE:
            before = [old for old in (tracked, local) if old is not None]
            past = dict.fromkeys(digest for old in before for digest in (*old.replaced, old.digest))
            past.pop(record.digest, None)
            if local is not None and self.local is not None:
                self.local.remove(local)
            return self.tracked.write(record.model_copy(update={"replaced": tuple(past)}), samples)
        assert self.local is not None
        if (tracked.digest, tracked.needs) == (record.digest, record.needs):
            if local is not None:
                self.local.remove(local)
            return tracked
        return self.local.write(record, samples)

    def status_of_tracked(self, record: Record) -> Status:
        """The status by tracked records alone, as a table sees it."""
        return Store(self.places, local=False).status(record)
