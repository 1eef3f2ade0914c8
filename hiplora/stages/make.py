"""The engine: finds the records of stages and makes those that are missing, needs first."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from hiplora import selection
from hiplora.config import digest
from hiplora.disk import Busy, check_writable, lock
from hiplora.environment import code, commit, environment, return_memory
from hiplora.parts import Parts
from hiplora.stages.base import Job, Stage
from hiplora.stages.record import Record, result_digest
from hiplora.stages.results import Scores
from hiplora.stages.store import Store
from hiplora.tracking import Tracker, Tracking


@dataclass(frozen=True)
class Wanted:
    """A stage that a pipeline asks for; ``shared`` if other runs use it too: ``force=true`` does not redo it.

    ``artefact`` is False if the record alone is enough: an adapter that is missing is then trained again only where
    another stage needs it.
    """

    stage: Stage
    shared: bool = False
    artefact: bool = True


@dataclass(frozen=True)
class Outcome:
    """The record of a stage that was asked for; ``recorded`` is the tracked record if that is a different one."""

    stage: Stage
    record: Record
    recorded: Record | None = None


@dataclass
class Engine:
    """Makes stages. ``made`` and ``reused`` name the records made and found; ``force`` redoes the stages asked for.

    Processes that run at the same time and ask for the same stages share the work: each skips what another is making.
    With ``wait=False`` it raises Busy, instead of waiting, when only such stages are left.
    """

    store: Store
    tracking: Tracking
    force: bool = False
    wait: bool = True
    made: list[str] = field(default_factory=list)
    reused: list[str] = field(default_factory=list)
    _total: int = 0
    _open: str = ""  # "+" after the total if more stages may follow, as results decide
    _others: int = 0  # stages that were missing when asked for, and that another process has made since

    def __post_init__(self) -> None:
        commit()  # before any stage is made, because files and commit may change while it is
        self._code = code()

    def run(self, asked: Iterable[Wanted | Sequence[Wanted]]) -> list[Outcome]:
        """The outcomes of the stages that a pipeline asks for, made where missing.

        A list is made as one batch; a generator is made step by step and receives the records of each step.

        Raises:
            UserError: a stage is refused before its batch is computed, or fails; finished records stay.
            Busy: other processes are making all that is left, and ``wait`` is False.
        """
        if isinstance(asked, Iterator):
            self._open = "+"
            outcomes: list[Outcome] = []
            reply: list[Record] | None = None
            while True:
                try:
                    batch = asked.send(reply) if reply is not None else next(asked)  # type: ignore[attr-defined]
                except StopIteration:
                    return outcomes
                step = self._batch(batch if isinstance(batch, Sequence) else [batch])
                outcomes += step
                reply = [outcome.record for outcome in step]
        return self._batch([wanted for wanted in asked if isinstance(wanted, Wanted)])

    def _batch(self, batch: Sequence[Wanted]) -> list[Outcome]:
        forced = [self.force and not wanted.shared for wanted in batch]
        self.store.refresh()
        todo = pending(
            self.store,
            [w.stage for w in batch],
            {w.stage.id for w, yes in zip(batch, forced, strict=True) if yes},
            bare=[w.stage.id for w in batch if not w.artefact],
        )
        for stage in todo:
            stage.check()
        if todo:
            for folder in (self.store.places.tracked, self.store.places.outputs):
                check_writable(folder)
        self._total = len(self.made) + self._others + len(todo)
        if not any(forced):
            self._share(todo)
        records = [self.make(w.stage, force=yes, artefact=w.artefact) for w, yes in zip(batch, forced, strict=True)]
        for number, wanted in enumerate(batch):
            # An adapter trained again for a later stage can differ from the one that an earlier record was made of.
            if not forced[number] and self.store.usable(wanted.stage) != records[number]:
                records[number] = self.make(wanted.stage, artefact=wanted.artefact)
        return [self._outcome(wanted.stage, record) for wanted, record in zip(batch, records, strict=True)]

    def _share(self, todo: Sequence[Stage]) -> None:
        """Make the missing stages; skip those that another process is making while there is anything else to do."""
        left = list(todo)
        while left:
            busy = [stage for stage in left if not self._made_or_found(stage, wait=False)]
            if len(busy) == len(left):
                if not self.wait:
                    raise Busy(busy[0].name())
                self._made_or_found(busy.pop(0), wait=True)
            left = busy

    def _made_or_found(self, stage: Stage, *, wait: bool) -> bool:
        """Whether a missing stage has its record now; False if another process is making it or one of its needs."""
        before = len(self.made)
        try:
            self.make(stage, wait=wait)
        except Busy:
            return False
        self._others += len(self.made) == before
        return True

    def _outcome(self, stage: Stage, record: Record) -> Outcome:
        tracked = self.store.tracked.get((record.id, record.where))
        return Outcome(stage, record, tracked if tracked is not None and tracked != record else None)

    def make(self, stage: Stage, *, force: bool = False, wait: bool = True, artefact: bool = True) -> Record:
        """The record of a stage, found or made, with its artefact if the kind leaves one.

        With ``artefact=False`` a record that is found may be without.

        Raises:
            Busy: another process is making it or one of its needs, and ``wait`` is False.
        """
        found = None if force else found_whole(self.store, stage)
        if found is None and not force and not artefact and (found := self.store.usable(stage)) is not None:
            self._reuse(found)
            return found
        if found is None:
            before = self.store.current((stage.id, stage.where()))
            for need in stage.needs():  # before taking the lock, so that no lock is held while waiting for another
                self.make(need, wait=wait)
            places = self.store.places
            target = places.artefact(stage.id, stage.where())
            with lock(places.lock(stage.id, stage.where()), target=target, wait=wait):
                self.store.refresh()
                found = found_whole(self.store, stage)  # another process may have made it meanwhile
                if found is None or (force and found == before):
                    return self._make(stage, force=force)
        self._reuse(found)
        stage.complete(self._job(stage))
        return found

    def _reuse(self, record: Record) -> None:
        line = f"{record.kind} {record.name}-{record.id}"
        if line not in (*self.made, *self.reused):
            self.reused.append(line)

    def _make(self, stage: Stage, *, force: bool) -> Record:
        done = len(self.made) + self._others
        self._total = max(self._total, done + 1)
        line = f"{stage.kind} {stage.name()}-{stage.id}"
        print(f"[{done + 1}/{self._total}{self._open}] {line}", file=sys.stderr, flush=True)
        return_memory()
        started = datetime.now(UTC).isoformat(timespec="seconds")
        job = self._job(stage)
        made = stage.run(job)
        samples = list(made.samples)
        record: Record = Record(
            kind=stage.kind,
            id=stage.id,
            where=stage.where(),
            name=stage.name(),
            asked=stage.described(),
            needs={id: need.digest for id, need in job.needs.items()},
            digest=result_digest(made.result, samples),
            environment=environment(made.device) | selection.mark(self.store.places.results),
            started=started,
            result=made.result,
        )
        written = self.store.write(record, samples, force=force)
        job.parts.forget()
        stage.clean(job)
        self.made.append(line)
        if isinstance(made.result, Scores):
            self._publish(written, job)
        return written

    def _job(self, stage: Stage) -> Job:
        places, where = self.store.places, stage.where()
        records = {need.id: self.store.current((need.id, need.where())) for need in stage.needs()}
        needs = {id: record for id, record in records.items() if record is not None}
        made_by = digest([self._code, {id: record.digest for id, record in needs.items()}])
        return Job(
            needs=needs,
            parts=Parts(places.parts(stage.id, where, made_by)),
            folder=places.artefact(stage.id, where),
            checkpoints=places.checkpoints(stage.id, where),
            texts=places.texts,
            made_by=made_by,
            artefacts={id: places.artefact(id, record.where) for id, record in needs.items()},
            tracker=self._tracker(stage),
        )

    def _tracker(self, stage: Stage) -> Tracker | None:
        """A W&B run for the training curve of a stage that leaves an artefact; None for other stages."""
        if not stage.artefact:
            return None
        return self.tracking.curve(name=stage.name(), id=stage.id, kind=stage.kind, asked=stage.described())

    def _publish(self, record: Record, job: Job) -> None:
        """Send scores to W&B, in the group of their adapter's training; a merge or the backbone has its own group."""
        trained = [need for need in job.needs.values() if not isinstance(need.result, Scores)]
        of = trained[0] if len(trained) == 1 else record
        self.tracking.publish(
            name=record.name,
            id=record.id,
            group=f"{of.name}-{of.id}",
            kind=record.kind,
            asked=record.asked,
            numbers=record.result.reproducible(),
        )


def found_whole(store: Store, stage: Stage) -> Record | None:
    """The reusable record of a stage; None if its artefact is missing or lacks something that is asked for."""
    record = store.usable(stage)
    if record is None or not stage.artefact:
        return record
    folder = store.artefact(record)
    return record if folder is not None and stage.holds(folder) else None


def pending(
    store: Store, stages: Sequence[Stage], forced: Iterable[str] = (), *, bare: Iterable[str] = ()
) -> list[Stage]:
    """The stages that a run of these would have to make, needs first, each once; ``forced`` are ids to redo.

    Of the stages whose ids are in ``bare`` the records are enough; the needs of a stage that must be made need their
    artefacts all the same.
    """
    todo: dict[str, Stage] = {}
    again, records = set(forced), set(bare)

    def visit(stage: Stage, *, whole: bool) -> None:
        if stage.id in todo:
            return
        found = found_whole(store, stage) if whole else store.usable(stage)
        if found is None or stage.id in again:
            for need in stage.needs():
                visit(need, whole=True)
            todo[stage.id] = stage

    for stage in stages:
        visit(stage, whole=stage.id not in records)
    return list(todo.values())
