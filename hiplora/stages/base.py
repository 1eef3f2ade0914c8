"""Base classes of stages and sources. A stage is the unit of work behind every published number.

A stage is frozen options. Its id is a hash of these (:mod:`hiplora.config`) and of the digests of the files it reads.
Its needs are the stages whose records and artefacts it uses. A source puts weights on the shared backbone and then
restores the backbone bit for bit; it leaves no record of its own.
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
    """What a stage's run returns for its record; ``device`` describes the hardware in words."""

    result: Result
    device: str
    samples: Sequence[Sample] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What the engine gives a running stage.

    ``needs`` holds the records of the stage's needs by id, ``artefacts`` the folders of their artefacts by id.
    ``parts`` holds the finished parts of an interrupted run. ``folder`` is the folder for the stage's own artefact,
    ``checkpoints`` the one for resumable checkpoints, ``texts`` the one for the text of lm-eval's items. ``made_by`` is
    a digest of the package's code and of the needs: checkpoints with another one must not be continued. ``tracker``
    logs the training curve to W&B, or is None.
    """

    needs: Mapping[str, Record]
    parts: Parts
    folder: Path
    checkpoints: Path
    texts: Path
    artefacts: Mapping[str, Path]
    made_by: str = ""
    tracker: Tracker | None = None


@dataclass(frozen=True)
class Loaded:
    """A model with a source's weights on it; ``report`` says how they were made and goes into the record."""

    model: nn.Module
    report: dict[str, Any] = field(default_factory=dict)


class Stage(Options):
    """A unit of work. Each subclass is one kind: it declares its fields and implements ``where``, ``name`` and ``run``.

    ``kind`` is its name in records; ``artefact`` tells whether it leaves a folder.
    """

    kind: ClassVar[str]
    artefact: ClassVar[bool] = False

    @cached_property
    def id(self) -> str:
        """12 hex digits that identify what was asked: a digest of kind, version, fields and the files read."""
        return digest([self.identity(), self._read])

    @cached_property
    def _read(self) -> dict[str, str]:
        return self.reads()  # cached: a table needs it for hundreds of stages, for the id and for the description

    def reference(self) -> Any:
        return {"stage": self.id}

    def described(self) -> dict[str, Any]:
        return {**super().described(), **({"reads": self._read} if self._read else {})}

    def needs(self) -> tuple[Stage, ...]:
        """The stages whose records and artefacts a run of this one uses."""
        return ()

    def reads(self) -> dict[str, str]:
        """Files that determine the result: name → SHA-256, or the commit of a repository. Paths do not enter the id."""
        return {}

    def where(self) -> str:
        """Device type and arithmetic that a run on this machine would use, such as ``cpu-bfloat16``."""
        raise NotImplementedError

    def name(self) -> str:
        """A readable name for the record, such as ``hip-gsm8k-s42``; it is not part of the id."""
        raise NotImplementedError

    def check(self) -> None:
        """Refuse, before anything is computed, a stage that could not finish. Raises UserError."""

    def run(self, job: Job) -> Made:
        """Compute the result."""
        raise NotImplementedError

    def clean(self, job: Job) -> None:
        """Remove files that are useless once the record is written."""

    def holds(self, folder: Path) -> bool:
        """Whether the artefact in a folder has everything this stage asks for; if not, the engine makes it again."""
        return True

    def complete(self, job: Job) -> None:
        """Add to a finished artefact what this stage asks for beyond its id."""


class Source(Options):
    """Weights that can be put on a backbone to be scored. A source leaves no record of its own."""

    kind: ClassVar[str]

    @property
    def role(self) -> str:
        """Its role in tables: backbone, adapter or merged."""
        return self.kind

    @property
    def backbone(self) -> Model:
        """The model that the weights go on."""
        raise NotImplementedError

    def made_from(self) -> tuple[Stage, ...]:
        """The stages whose artefacts this source reads."""
        return ()

    def reads(self) -> dict[str, str]:
        """Files that determine the weights, beside the artefacts of those stages: name → SHA-256."""
        return {}

    def check(self) -> None:
        """Refuse weights that the backbone cannot take. Raises UserError."""

    def on(self, backbone: Backbone, job: Job) -> AbstractContextManager[Loaded]:
        """The model with the weights on it; when the block ends, the backbone is as it was, bit for bit."""
        raise NotImplementedError

    def name(self) -> str:
        """A readable name for file names."""
        raise NotImplementedError

    def subject(self) -> tuple[str, str]:
        """Two phrases for the error about non-finite outputs: which model it is, and what the user can do."""
        raise NotImplementedError

    def check_finite(self, metrics: Mapping[str, Mapping[str, float | None]]) -> None:
        """Refuse scores that are not finite; ``metrics`` is benchmark → metric → value. Raises UserError."""
        for benchmark, scores in metrics.items():
            for metric, value in scores.items():
                if value is not None and not math.isfinite(value):
                    subject, remedy = self.subject()
                    raise UserError(
                        f"The {metric} of {benchmark} is {value}: the outputs of {subject} are not finite; {remedy}."
                    )
