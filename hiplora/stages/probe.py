"""Kind ``probe``: scores of the backbone with one singular direction of one weight perturbed at a time."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from hiplora import models
from hiplora.config import As, Place, Positive, Seed
from hiplora.errors import UserError
from hiplora.evaluation.options import Evaluation
from hiplora.models import Model
from hiplora.parts import key
from hiplora.spectral.options import Svd
from hiplora.stages.base import Job, Made, Stage
from hiplora.stages.results import Intervention, Metrics, Probed
from hiplora.tasks.base import Task, asked_reads
from hiplora.tasks.source import Data, Source

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hiplora.spectral.recipes import Basis

Perturbation = Literal["zero", "flip", "noise"]


@dataclass(frozen=True)
class Chosen:
    """A planned intervention: ``W + coefficient · σ_i u_i v_iᵀ`` on one matrix; ``direction`` is i, counted from 0."""

    perturbation: str
    matrix: str
    direction: int
    coefficient: float


class Probe(Stage):
    """Scores under ``W + c σ_i u_i v_iᵀ``: zero has c = −1, flip c = −2, noise c ~ N(0, s²) with s = ``strength``.

    ``count`` is the number of directions for each perturbation. They are drawn from the ``k`` leading directions of the
    target matrices in ``layers`` layers, evenly spaced from the first to the last. One direction is drawn from each of
    ``count`` quantile bins of σ, because a correlation with σ needs its whole range.
    """

    kind: ClassVar[str] = "probe"

    model: Model
    targets: Annotated[tuple[str, ...], Field(strict=False), As(sorted)]
    svd: Svd
    k: Positive
    layers: Positive
    count: dict[Perturbation, Positive]
    strength: Annotated[float, Field(gt=0, le=10, examples=[0.1])]
    seed: Seed
    benchmarks: Annotated[tuple[Task, ...], Field(strict=False, min_length=1)]
    evaluation: Evaluation
    data: Annotated[Data, Place]

    def reads(self) -> dict[str, str]:
        asked = asked_reads(self.benchmarks, Source(self.data), self.evaluation.splits)
        return {"backbone": models.identity(self.model), **asked}

    def where(self) -> str:
        return self.model.where()

    def name(self) -> str:
        return f"{self.model.label}-s{self.seed}"

    def check(self) -> None:
        models.check(self.model)
        for task in self.benchmarks:
            task.check_asked(Source(self.data), self.evaluation.splits)

    def run(self, job: Job) -> Made:
        from tqdm import tqdm

        started = time.perf_counter()
        backbone = models.load(self.model)
        bases = self._bases(backbone.model)
        base = self._scores(backbone, job, Chosen("none", "", 0, 0.0), bases)
        asked = choose(
            {name: basis.S[: self.k].tolist() for name, basis in bases.items()},
            count=self.count,
            strength=self.strength,
            seed=self.seed,
        )
        done = [
            Intervention(
                perturbation=each.perturbation,
                matrix=each.matrix,
                direction=each.direction,
                sigma=float(bases[each.matrix].S[each.direction]),
                coefficient=each.coefficient,
                benchmarks=self._scores(backbone, job, each, bases),
            )
            for each in tqdm(asked, desc="probe", unit="intervention")
        ]
        result = Probed(base=base, interventions=done, seconds=round(time.perf_counter() - started, 2))
        return Made(result, models.describe(backbone))

    def _bases(self, model: PreTrainedModel) -> dict[str, Basis]:
        """Singular directions of the probed matrices, from the cache, which holds those of all targets.

        Raises:
            UserError: a matrix has fewer than ``k`` directions.
        """
        from hiplora.spectral.cache import load_or_compute
        from hiplora.stages.energy import matrices
        from hiplora.stages.targets import resolved, target_shapes

        every = list(target_shapes(model, resolved(model, self.targets)))
        weights = matrices(model, every)
        bases = load_or_compute(weights, **self.svd.fields()).bases
        if (least := min(basis.S.numel() for basis in bases.values())) < self.k:
            raise UserError(
                f"pipeline.k={self.k} exceeds the {least} directions of a probed matrix; lower it or raise svd.k_max."
            )
        return {name: bases[name] for name in in_layers(every, self.layers)}

    def _scores(
        self, backbone: models.Backbone, job: Job, chosen: Chosen, bases: Mapping[str, Basis]
    ) -> dict[str, Metrics]:
        """Scores under one intervention, or of the unchanged backbone; finished parts are reused."""
        from hiplora.evaluation.engine import evaluate
        from hiplora.merging.attached import attached
        from hiplora.updates import LowRank

        place = key(chosen.perturbation, chosen.matrix, chosen.direction, chosen.coefficient)
        found: dict[str, Metrics] | None = job.parts.get(place)
        if found is None:
            updates = {}
            if chosen.matrix:
                basis, i = bases[chosen.matrix], chosen.direction
                left = chosen.coefficient * basis.S[i] * basis.U[:, i]
                updates[chosen.matrix] = LowRank(left[:, None], basis.V[:, i][None])
            with attached(backbone.model, updates):  # not added into W, whose rounding would hide a small change
                scores = evaluate(
                    backbone.model,
                    backbone.tokenizer,
                    tasks=self.benchmarks,
                    source=Source(self.data),
                    evaluation=self.evaluation,
                    progress=False,
                )
            found = {name: {**score.metrics, "n": score.n} for name, score in scores.items()}
            job.parts.keep({place: found})
        return found


def in_layers(names: Sequence[str], count: int) -> list[str]:
    """The names of the matrices in ``count`` layers, evenly spaced from the first to the last; all if there are fewer.

    The layer of a matrix is the first number in its name, as in ``model.layers.7.self_attn.q_proj``.
    """
    numbers = {name: next((int(part) for part in name.split(".") if part.isdigit()), 0) for name in names}
    layers = sorted(set(numbers.values()))
    count = min(count, len(layers))
    taken = {layers[round(i * (len(layers) - 1) / max(count - 1, 1))] for i in range(count)}
    return [name for name in names if numbers[name] in taken]


def choose(
    sigma: Mapping[str, Sequence[float]], *, count: Mapping[Perturbation, int], strength: float, seed: int
) -> list[Chosen]:
    """The interventions, in order: for each perturbation one direction from every quantile bin of σ.

    Args:
        sigma: matrix → singular values of its directions.
        count: perturbation → number of directions, at most as many as there are.

    Raises:
        UserError: there are fewer directions than ``count`` asks for.
    """
    places = sorted((value, matrix, i) for matrix, values in sigma.items() for i, value in enumerate(values))
    chosen: list[Chosen] = []
    for perturbation, number in count.items():
        if number > len(places):
            raise UserError(
                f"pipeline.count.{perturbation}={number} exceeds the {len(places)} directions of the probed matrices; "
                "raise pipeline.layers or pipeline.k."
            )
        draw = random.Random(f"{seed}/{perturbation}")
        edges = [round(bin * len(places) / number) for bin in range(number + 1)]
        for low, high in pairwise(edges):
            _, matrix, i = places[draw.randrange(low, high)]
            coefficient = {"zero": -1.0, "flip": -2.0}.get(perturbation) or draw.gauss(0.0, strength)
            chosen.append(Chosen(perturbation, matrix, i, coefficient))
    return chosen
