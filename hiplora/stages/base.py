"""What a stage is: the unit of work behind every published number.

A stage is frozen options. Its id follows from them (:mod:`hiplora.config`) and from the digests of what it reads; its
needs are the stages whose records and artefacts it uses. A source puts weights on the shared backbone and takes them
off again, bit for bit; it leaves no record of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hiplora.config import Options, digest
from hiplora.errors import UserError
from hiplora.parts import Parts
from hiplora.stages.record import Record, Sample
from hiplora.stages.results import Result

if TYPE_CHECKING:
    from torch import nn

    from hiplora.models import Backbone, Model
    from hiplora.tracking import Tracker


@dataclass(frozen=True)
class Made:
    """What a stage's run hands to its record; ``device`` names the hardware in words."""

    result: Result
    device: str
    samples: Sequence[Sample] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a running stage is given.

    ``needs`` holds the records of its needs by id, ``parts`` what an earlier run that was stopped has finished.
    ``folder`` is where its artefact belongs, ``checkpoints`` where it may keep what it goes on from, ``artefacts`` the
    folders of its needs' artefacts by id; ``tracker`` is the W&B run of its curve, or None.
    """

    needs: Mapping[str, Record]
    parts: Parts
    folder: Path
    checkpoints: Path
    artefacts: Mapping[str, Path]
    tracker: Tracker | None = None


@dataclass(frozen=True)
class Loaded:
    """A model with a source's weights on it, and what is worth recording about how they were made."""

    model: nn.Module
    report: dict[str, Any] = field(default_factory=dict)


class Stage(Options):
    """A unit of work. A subclass is one kind: ``kind`` names it in records, ``artefact`` says that it leaves a folder.

    A subclass declares its fields and implements ``where``, ``name`` and ``run``.
    """

    kind: ClassVar[str]
    artefact: ClassVar[bool] = False

    @cached_property
    def id(self) -> str:
        """What was asked: 12 hex digits of kind, version, fields and what is read."""
        return digest([self.identity(), self._read])

    @cached_property
    def _read(self) -> dict[str, str]:
        return self.reads()  # looked up once: a table asks hundreds of stages, for their ids and to describe them

    def reference(self) -> Any:
        return {"stage": self.id}

    def described(self) -> dict[str, Any]:
        return {**super().described(), **({"reads": self._read} if self._read else {})}

    def needs(self) -> tuple[Stage, ...]:
        """The stages whose records and artefacts a run of this one uses."""
        return ()

    def reads(self) -> dict[str, str]:
        """Files that decide the result: name → SHA-256, or the commit of a repository. Paths do not enter."""
        return {}

    def where(self) -> str:
        """Device type and arithmetic that would answer here, such as ``cpu-bfloat16``."""
        raise NotImplementedError

    def name(self) -> str:
        """Words that a person looks the record up by, such as ``hip-gsm8k-s42``; they do not identify it."""
        raise NotImplementedError

    def check(self) -> None:
        """Refuse, before anything is computed, what could not be finished. Raises UserError."""

    def run(self, job: Job) -> Made:
        """Compute the result."""
        raise NotImplementedError

    def clean(self, job: Job) -> None:
        """Remove what is of no use once the record is written."""

    def holds(self, folder: Path) -> bool:
        """Whether the artefact in a folder has everything that is asked for; it is made again where it has not."""
        return True

    def complete(self, job: Job) -> None:
        """Add to a finished artefact what is asked for and not part of the id."""


class Source(Options):
    """Weights that can be put on a backbone to be scored. It leaves no record of its own."""

    kind: ClassVar[str]

    @property
    def role(self) -> str:
        """What it is to a table: backbone, adapter or merged."""
        return self.kind

    @property
    def backbone(self) -> Model:
        """The model that the weights go on."""
        raise NotImplementedError

    def stands_on(self) -> tuple[Stage, ...]:
        """The stages whose artefacts are read."""
        return ()

    def reads(self) -> dict[str, str]:
        """Files that decide the weights, beside those of the stages: name → SHA-256."""
        return {}

    def check(self) -> None:
        """Refuse what could not be put on. Raises UserError."""

    def on(self, backbone: Backbone, job: Job) -> AbstractContextManager[Loaded]:
        """The model with the weights on it; when the block ends, the backbone is as it was, bit for bit."""
        raise NotImplementedError

    def name(self) -> str:
        """Words for file names."""
        raise NotImplementedError

    def subject(self) -> tuple[str, str]:
        """What the model is, for a sentence that refuses its outputs, and what to do about them."""
        raise NotImplementedError

    def check_finite(self, metrics: Mapping[str, Mapping[str, float | None]]) -> None:
        """Refuse scores that are not finite. Raises UserError."""
        for benchmark, scores in metrics.items():
            for metric, value in scores.items():
                if value is not None and not math.isfinite(value):
                    subject, remedy = self.subject()
                    raise UserError(
                        f"The {metric} of {benchmark} is {value}: the outputs of {subject} are not finite; {remedy}."
                    )
