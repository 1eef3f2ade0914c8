"""Kind ``drift``: does the subspace cached before training remain the leading one of the adapted weights?"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from hiplora import models
from hiplora.config import Fraction, Positive, digest
from hiplora.errors import UserError
from hiplora.spectral.options import Svd
from hiplora.stages import energy
from hiplora.stages.base import Job, Made, Source, Stage
from hiplora.stages.folders import Folder
from hiplora.stages.results import Drifted, DriftPoint, MatrixDrift
from hiplora.stages.sources import Snapshot, trained_updates
from hiplora.stages.train import Train

if TYPE_CHECKING:
    from torch import Tensor

    from hiplora.spectral.recipes import Basis
    from hiplora.updates import Update

INTRUDER = 0.5  # a direction of the adapted weight is an intruder if its cosine with every old one is below this


class Drift(Stage):
    """Leading subspaces of W + ΔW against those of W, for the finished adapter and at ``fractions`` of its training.

    The baseline is a random update of the same rank and norm on every matrix. ``k`` directions are compared; intruders
    are judged against all ``svd.k_max`` old directions. An adapter folder has no snapshots, so it takes no fractions;
    the measures that a training would record of its update are computed here for it.
    """

    kind: ClassVar[str] = "drift"

    of: Train | Folder
    svd: Svd
    k: Positive
    fractions: Annotated[tuple[Fraction, ...], Field(strict=False)]

    def check_options(self) -> None:
        if self.k >= self.svd.k_max:
            raise UserError(
                f"pipeline.k={self.k} must be below svd.k_max={self.svd.k_max}, because the gap after the k-th "
                "singular value is measured."
            )
        if isinstance(self.of, Folder) and self.fractions:
            raise UserError("An adapter folder has no snapshots of its training; leave the fractions out.")

    def needs(self) -> tuple[Stage, ...]:
        return (self.of.keeping(*self.fractions),) if isinstance(self.of, Train) else ()

    def reads(self) -> dict[str, str]:
        return self.of.reads() if isinstance(self.of, Source) else {}  # the id of a training covers what it reads

    def where(self) -> str:
        return self.of.model.where()

    def name(self) -> str:
        return self.of.name()

    def check(self) -> None:
        models.check(self.of.model)
        if isinstance(self.of, Source):
            self.of.check()

    def run(self, job: Job) -> Made:
        from tqdm import tqdm

        started = time.perf_counter()
        backbone = models.load(self.of.model)
        final = self._updates(1, backbone, job)
        weights = energy.matrices(backbone.model, final)
        bases = energy.bases(backbone.model, final, self.svd)
        points: list[DriftPoint] = []
        for fraction, random in tqdm(self._asked(), desc="drift", unit="point"):
            place = f"{fraction}/{random}"
            if job.parts.get(place) is None:
                updates = final if fraction == 1 else self._updates(fraction, backbone, job)
                moved = {name: alike(update, name) for name, update in updates.items()} if random else updates
                found = {name: self._matrix(weights[name], moved[name], bases[name]) for name in moved}
                point = DriftPoint(fraction=fraction, random=random, matrices=found)
                job.parts.keep({place: point.model_dump()})
            points.append(DriftPoint(**job.parts.get(place)))
        measures = energy.measures(final, bases) if isinstance(self.of, Source) else {}
        seconds = round(time.perf_counter() - started, 2)
        result = Drifted(k=self.k, points=points, seconds=seconds, measures=measures)
        return Made(result, models.describe(backbone))

    def _updates(self, fraction: float, backbone: models.Backbone, job: Job) -> dict[str, Update]:
        """ΔW of every matrix after a fraction of the steps."""
        if isinstance(self.of, Folder):
            return self.of.updates()
        if fraction == 1:
            return trained_updates(self.of, backbone, job)
        return Snapshot(train=self.of, fraction=fraction).updates(backbone, job)

    def _asked(self) -> list[tuple[float, bool]]:
        """Pairs: fraction of the steps, and whether a random update replaces the trained one."""
        return [*((fraction, False) for fraction in (*self.fractions, 1.0)), (1.0, True)]

    def _matrix(self, weight: Tensor, update: Update, old: Basis) -> MatrixDrift:
        """How an update moves the leading subspaces of one weight."""
        import torch

        from hiplora.spectral import truncated_svd

        options = self.svd.fields()
        del options["k_max"]
        change = update.to(weight.device).dense().float()
        new = truncated_svd(weight.float() + change, k=min(self.k, *weight.shape), **options)
        size = float(torch.linalg.matrix_norm(change)) / float(torch.linalg.matrix_norm(weight.float()))
        return compared(old, new, update=update, size=size)


def compared(old: Basis, new: Basis, *, update: Update, size: float) -> MatrixDrift:
    """The drift of one matrix. ``old`` holds the directions of W, ``new`` the k leading ones of W + ΔW.

    ``old`` has more than k directions unless the matrix has no more; ``size`` is ‖ΔW‖_F / ‖W‖_F.
    """
    from hiplora.spectral import principal_angles
    from hiplora.updates import inside

    k = new.k
    sides = [(first.cpu().double(), second.cpu().double()) for first, second in ((old.U, new.U), (old.V, new.V))]
    overlaps = [float((one[:, :k].T @ two).square().sum()) / k for one, two in sides]
    angles = [float(principal_angles(one[:, :k], two)[-1]) for one, two in sides]
    closest = (sides[0][0].T @ sides[0][1]).abs().max(dim=0).values
    energy_inside, total = inside(update.to("cpu"), old.U[:, :k], old.V[:, :k]), update.norm() ** 2
    following = float(old.S[k]) if old.k > k else 0.0
    return MatrixDrift(
        overlap=round(sum(overlaps) / 2, 6),
        angle=round(math.degrees(max(angles)), 4),
        gap=round((float(old.S[k - 1]) - following) / float(old.S[0]), 6),
        share=round(energy_inside / total, 6) if total else None,
        intruders=int((closest < INTRUDER).sum()),
        size=round(size, 6),
    )


def alike(update: Update, name: str) -> Update:
    """A random update with the rank and the norm of ``update``; ``name`` seeds the draw."""
    import torch

    from hiplora.updates import Dense, LowRank

    generator = torch.Generator().manual_seed(int(digest(["drift", name]), 16))
    m, n = update.shape
    drawn: LowRank | Dense
    if isinstance(update, Dense):
        drawn = Dense(torch.randn(m, n, generator=generator))
    else:
        rank = min(update.rank, m, n)
        drawn = LowRank(torch.randn(m, rank, generator=generator), torch.randn(rank, n, generator=generator))
    size = drawn.norm()
    return drawn.scaled(update.norm() / size) if size else drawn  # an update of rank 0 has nothing like it
