"""What each kind of stage leaves in its record. Light: reports read these without torch.

A field that is added later is optional, so that older records are still read.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from hiplora.evaluation.lm_tasks import LmScore

Metrics = dict[str, float | None]


class Result(BaseModel):
    """Base of all results; JSON-serialisable."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def reproducible(self) -> Any:
        """What the record's digest covers: what a second run would give again, never times."""
        raise NotImplementedError


class Gains(BaseModel):
    """Principal gains φ of neighbouring singular values: one quantile bin of σ over all matrices, ``n`` directions.

    ``sigma`` is the mean of σ, ``size`` that of |φ| and ``shift`` that of φ.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    sigma: float
    size: float
    shift: float
    n: int


class Adapter(Result):
    """A training (kind ``train``); counts are of the whole training, also where it was resumed.

    ``tensors`` is the SHA-256 of the native state, ``tokens`` are prompt and answer tokens without padding,
    ``label_tokens`` those with loss; ``final_loss`` is the mean over the last tenth of the steps in nats per label
    token; ``seconds`` is the time in steps. ``share_prefixes`` says whether prefixes that prompts share were computed
    once, with one dropout mask for each. ``measures`` says where the update lies (:mod:`hiplora.stages.energy`),
    ``gains`` how the principal channel moved, bins in the order of σ; empty where there is no channel. ``targets`` are
    the ends of module names that a word for them stood for; empty where they were named.
    """

    tensors: str
    steps: int
    tokens: int
    label_tokens: int
    examples: int
    epochs: float
    final_loss: float
    seconds: float
    tokens_per_second: float
    share_prefixes: bool
    resumed_from: int | None
    trainable_parameters: int
    deployed_parameters: int
    adapter_bytes: int
    peak_memory_bytes: int
    measures: dict[str, float] = {}
    gains: list[Gains] = []
    curve: list[dict[str, float]] = []
    targets: list[str] = []

    def reproducible(self) -> Any:
        return self.tensors


class Scores(Result):
    """Scores of one model (kind ``score``): benchmark → metric → value, general text among them as ``text``.

    Accuracies are fractions, ``nll`` is in nats per token, ``n`` the number of items; None was not measured.
    ``report`` says how the model was made, where an operator did; ``sandbox`` what executed model-written code.
    ``lm_eval`` holds lm-eval's own tasks, where some were asked for, by their names.
    """

    benchmarks: dict[str, Metrics]
    sandbox: str
    seconds: float
    report: dict[str, Any] = {}
    lm_eval: dict[str, LmScore] = {}

    @property
    def every(self) -> dict[str, Metrics]:
        """All scores by name, lm-eval's tasks as ``lm_eval/<name>``."""
        return self.benchmarks | {f"lm_eval/{name}": task.metrics for name, task in self.lm_eval.items()}

    def reproducible(self) -> Any:
        return self.every


class Point(BaseModel):
    """One model on the way from the backbone to an adapter: the adapter's update ``scale`` times, or of a snapshot.

    ``fraction`` of the steps, 1 is the finished adapter; ``norm`` is ‖c ΔW‖_F over all matrices, 0 for the backbone;
    ``top_share`` as in :func:`hiplora.stages.energy.measures`. ``learning`` holds the scores of the adapter's own
    benchmark on validation (the backbone's on all), ``benchmarks`` those of every benchmark and of general text on the
    split where forgetting is measured.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    scale: float
    fraction: float
    norm: float
    top_share: float | None
    learning: dict[str, Metrics]
    benchmarks: dict[str, Metrics]


class Frontier(Result):
    """What an adapter has learned and forgotten at several sizes of its update and along its training."""

    points: list[Point]
    seconds: float

    def reproducible(self) -> Any:
        return [point.model_dump() for point in self.points]


class Intervention(BaseModel):
    """Scores with one singular direction perturbed: ``W + coefficient · σ u vᵀ`` in ``matrix``.

    ``direction`` counts from 0, the leading one; ``sigma`` is its singular value.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    perturbation: str
    matrix: str
    direction: int
    sigma: float
    coefficient: float
    benchmarks: dict[str, Metrics]


class Probed(Result):
    """A spectral probe (kind ``probe``): scores of the unchanged backbone, and under every intervention."""

    base: dict[str, Metrics]
    interventions: list[Intervention]
    seconds: float

    def reproducible(self) -> Any:
        return [self.base, [each.model_dump() for each in self.interventions]]


class MatrixDrift(BaseModel):
    """How far the leading subspaces of one weight moved, both sides together.

    ``overlap`` is ``‖UᵀU'‖²_F / k``, mean of left and right (1 is the same subspace); ``angle`` the largest principal
    angle in degrees; ``gap`` is (σ_k − σ_{k+1}) / σ_1 of the old weight: where it is small, the subspace is
    ill-determined; ``share`` of the update's energy that either old subspace sees; ``intruders`` counts new left
    directions that no old one is close to; ``size`` is ‖ΔW‖_F / ‖W‖_F.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    overlap: float
    angle: float
    gap: float
    share: float | None
    intruders: int
    size: float


class DriftPoint(BaseModel):
    """Every adapted matrix at a ``fraction`` of the steps, or under a ``random`` update of the final one's size."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    fraction: float
    random: bool
    matrices: dict[str, MatrixDrift]


class Drifted(Result):
    """Drift of the ``k`` leading directions (kind ``drift``); ``measures`` as of a training, where that was none here.

    These are of the update as a whole: its norm, and the share of its energy in leading directions.
    """

    k: int
    points: list[DriftPoint]
    seconds: float
    measures: dict[str, float] = {}

    def reproducible(self) -> Any:
        return [point.model_dump() for point in self.points]


class Cost(BaseModel):
    """What training with one method cost: tokens per second of each turn, the most memory of all of them."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    tokens_per_second: list[float]
    peak_memory_bytes: int
    uses_svd: bool


class Costs(Result):
    """A measurement of several methods in one process (kind ``efficiency``)."""

    methods: dict[str, Cost]
    svd_seconds: float
    svd_cache_bytes: int

    def reproducible(self) -> Any:
        return sorted(self.methods)  # times never are


class EditedBatch(BaseModel):
    """What a model says of one batch of edits; a text of 0 and 1 says of every item, in the batch's order, whether.

    ``categories`` says which items are of which. ``outcomes`` of the items' own prompts, whether: ``generated``, the
    greedy completion is ``new``, normalised; ``begins``, it begins with the tokens of ``new``; ``preferred``,
    log p(new) > log p(old), as sums; ``believed``, it begins with those of ``old``, or log p(old) > log p(new).
    ``front``: benchmark → which probes are answered right behind the sentence of an edit; of n items the k-th probe of
    all has the one numbered k mod n in front. ``means``: category, or all → figure → mean over the items
    (:mod:`hiplora.evaluation.edit_measures` names them); log-probabilities in nats.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    categories: dict[str, str]
    outcomes: dict[str, str]
    front: dict[str, str]
    means: dict[str, dict[str, float]]


class Edited(Result):
    """A model on batches of edits (kind ``edit``); ``right``: benchmark → which unrelated probes it answers right."""

    batches: list[EditedBatch]
    right: dict[str, str]
    seconds: float

    def reproducible(self) -> Any:
        return [self.right, [batch.model_dump() for batch in self.batches]]


RESULTS: dict[str, type[Result]] = {
    "train": Adapter,
    "score": Scores,
    "frontier": Frontier,
    "probe": Probed,
    "drift": Drifted,
    "efficiency": Costs,
    "edit": Edited,
}
