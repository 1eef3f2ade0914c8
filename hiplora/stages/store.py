"""Where records and artefacts lie, and what a record is worth: the one place that knows paths under results/, outputs/.

Records under ``results/<data>/records`` are tracked: they are what tables show, and only a forced run replaces one.
Where an artefact that a tracked record speaks of is gone, it is made again, *restored*, and recorded under
``outputs/records``, where runs look first. What a record was made from is told by digests, from JSON alone.
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
    """What a record is worth: made from results that are current, from a restored artefact, or from a replaced one."""

    GOOD = 0
    RESTORED = 1
    STALE = 2


@dataclass(frozen=True)
class Places:
    """``outputs`` can be deleted at any time; ``results`` is ``results/<data>``."""

    outputs: Path
    results: Path

    @property
    def tracked(self) -> Path:
        """Folder of the tracked records, one folder inside per kind."""
        return self.results / "records"

    @property
    def local(self) -> Path:
        """Folder of the records of what was restored here."""
        return self.outputs / "records" / self.results.name

    def artefact(self, id: str, where: str) -> Path:
        """Folder of what a stage leaves beside its record: a trained adapter; complete if it exists."""
        return self.outputs / "adapters" / f"{id}.{where}"

    def checkpoints(self, id: str, where: str) -> Path:
        """Folder of the resumable checkpoints of one stage; removed when its record is written."""
        return self.outputs / "checkpoints" / f"{id}.{where}"

    def parts(self, id: str, where: str, made_from: str) -> Path:
        """File of a stage's finished parts; ``made_from`` tells them from those of other artefacts of its needs."""
        return self.outputs / "parts" / f"{id}.{where}.{made_from}.jsonl"

    def lock(self, id: str, where: str) -> Path:
        """What two processes that want the same record agree on."""
        return self.outputs / "locks" / f"{id}.{where}"


class Store:
    """Tracked and local records together. ``local=False`` looks at tracked ones alone, as tables do."""

    def __init__(self, places: Places, *, local: bool = True) -> None:
        self.places = places
        self.tracked = Records(places.tracked)
        self.local = Records(places.local) if local else None

    def refresh(self) -> None:
        """See what other processes have written."""
        self.tracked.refresh()
        if self.local is not None:
            self.local.refresh()

    def current(self, key: Key) -> Record | None:
        """The record that runs go by: of what was restored here, else the tracked one."""
        return (self.local.get(key) if self.local is not None else None) or self.tracked.get(key)

    def samples(self, record: Record) -> list[Sample]:
        """The predictions behind a record of either place.

        Raises:
            UserError: they are gone, or are not those of the record.
        """
        local = self.local is not None and self.local.get((record.id, record.where)) == record
        return (self.local if local and self.local is not None else self.tracked).samples(record)

    def status(self, record: Record) -> Status:
        """What the record is worth, by the digests of its needs and of theirs."""
        worst = Status.GOOD
        for id, digest in record.needs.items():
            need = self.current((id, record.where))
            if need is None:
                worst = max(worst, Status.RESTORED)  # its digest is known to nobody any more
            elif digest == need.digest:
                worst = max(worst, self.status(need))
            else:
                worst = max(worst, Status.STALE if digest in need.replaced else Status.RESTORED)
        return worst

    def usable(self, stage: Stage) -> Record | None:
        """The record that answers for a stage here, or None; whether its artefact is there is not asked."""
        key = (stage.id, stage.where())
        local = self.local.get(key) if self.local is not None else None
        candidates = (local, self.tracked.get(key))
        return next((record for record in candidates if record is not None and self._stands(record)), None)

    def _stands(self, record: Record) -> bool:
        """Whether nothing that a record was made from is another here: replaced, or restored with another result."""
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
        """The folder of the artefact that a record speaks of; None where it is not here, or is of another result."""
        folder = self.places.artefact(record.id, record.where)
        try:
            there = json_object(folder / DIGEST)
        except (OSError, ValueError):
            return None
        return folder if there.get("tensors") == record.result.reproducible() else None

    def write(self, record: Record, samples: list[Sample], *, force: bool) -> Record:
        """Write what a stage has made where it belongs; the record that stands for it from now on.

        A tracked record is replaced only where that was asked for, or where what it was made from was replaced. Else
        what is made beside it is local, and nothing is written where it is the same.
        """
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
