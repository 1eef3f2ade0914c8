"""The result that each kind of stage leaves in its record. Light: reports read these without torch.

A field added later must be optional, so that older records can still be read.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from hiplora.evaluation.definitions import PREFIX
from hiplora.evaluation.lm_tasks import LmScore

Metrics = dict[str, float | None]


class Result(BaseModel):
    """Base of all results; JSON-serialisable."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def reproducible(self) -> Any:
        """What the record's digest covers: what a second run would reproduce, never times."""
        raise NotImplementedError


class Gains(BaseModel):
    """Principal gains φ in one quantile bin of the singular values σ of all matrices; the bin has ``n`` directions.

    ``sigma`` is the mean of σ, ``size`` the mean of |φ| and ``shift`` the mean of φ.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    sigma: float
    size: float
    shift: float
    n: int


class Adapter(Result):
    """A trained adapter (kind ``train``). Counts cover the whole training, also if it was resumed.

    ``tensors`` is the SHA-256 of the native state. ``tokens`` counts prompt and answer tokens without padding,
    ``label_tokens`` those with a loss. Of the ``examples`` trained on, ``cut`` were too long for a row and lost the end
    of their answer; ``dropped`` more were left out. Old records have neither, and ``examples`` includes those left out.
    ``final_loss`` is the mean over the last tenth of the steps, in nats per label token; ``seconds`` is the time spent
    in steps. ``share_prefixes`` tells whether a prefix that several prompts share was computed once, with one dropout
    mask for all of them. ``measures`` holds the size of the update and its shares in the leading singular subspaces
    (:mod:`hiplora.stages.energy`), ``gains`` the gains of the principal channel, bins in ascending order of σ; empty
    without a channel. ``targets`` are the module-name suffixes that ``auto`` or ``all-linear`` resolved to; empty if
    the suffixes were given.
    """

    tensors: str
    steps: int
    tokens: int
    label_tokens: int
    examples: int
    cut: int | None = None
    dropped: int | None = None
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
    """Scores of one model (kind ``score``): benchmark → metric → value, with general text under the data set's name.

    Accuracies are fractions, ``nll`` is in nats per token, ``n`` is the number of items; None means not measured.
    ``report`` says how a merge operator made the model; ``sandbox`` names the backend that executed model-written code.
    ``lm_eval`` holds the scores of lm-eval tasks by name, if any were asked for; ``texts`` names the file with the text
    of their items (:mod:`hiplora.evaluation.item_texts`).
    """

    benchmarks: dict[str, Metrics]
    sandbox: str
    seconds: float
    report: dict[str, Any] = {}
    lm_eval: dict[str, LmScore] = {}
    texts: str | None = None

    @property
    def every(self) -> dict[str, Metrics]:
        """All scores by name, lm-eval's tasks as ``lm_eval/<name>``."""
        return self.benchmarks | {f"{PREFIX}{name}": task.metrics for name, task in self.lm_eval.items()}

    def reproducible(self) -> Any:
        return self.every


class Point(BaseModel):
    """One model between the backbone and an adapter: the backbone with the update scaled, or with a snapshot's update.

    ``scale`` is the factor c; ``fraction`` is the fraction of the training steps, 1 for the finished adapter. ``norm``
    is ‖c ΔW‖_F over all matrices, 0 for the backbone. ``top_share`` is defined in :mod:`hiplora.stages.energy`.
    ``learning`` holds the scores of the adapter's own benchmark on validation (of every benchmark for the backbone),
    ``benchmarks`` those of every benchmark and of general text on the split that measures forgetting.
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

    ``direction`` counts from 0, the leading direction; ``sigma`` is its singular value.
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
    """How far the leading left and right subspaces of one weight moved.

    ``overlap`` is ``‖UᵀU'‖²_F / k``, averaged over left and right (1: the same subspace). ``angle`` is the largest
    principal angle of the two sides, in degrees. ``gap`` is (σ_k − σ_{k+1}) / σ_1 of the old weight; if it is small,
    the subspace is ill-determined. ``share`` is the share of the update's energy inside either old subspace, None for
    an update of 0. ``intruders`` counts new left directions that are close to no old one. ``size`` is ‖ΔW‖_F / ‖W‖_F.
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
    """Drift of the ``k`` leading directions (kind ``drift``).

    ``measures`` is filled only for an adapter folder, which has no training record with these numbers: the norm of the
    whole update and its energy shares (:mod:`hiplora.stages.energy`).
    """

    k: int
    points: list[DriftPoint]
    seconds: float
    measures: dict[str, float] = {}

    def reproducible(self) -> Any:
        return [point.model_dump() for point in self.points]


class Cost(BaseModel):
    """The cost of training with one method: tokens per second of each turn, and the peak memory over all turns."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    tokens_per_second: list[float]
    peak_memory_bytes: int
    uses_svd: bool


class Costs(Result):
    """The costs of several methods, measured in one process (kind ``efficiency``)."""

    methods: dict[str, Cost]
    svd_seconds: float
    svd_cache_bytes: int

    def reproducible(self) -> Any:
        return sorted(self.methods)  # times never are


class EditedBatch(BaseModel):
    """A model's answers on one batch of edits. Strings of 0 and 1 hold one flag per item, in the batch's order.

    ``categories``: category → which items belong to it. ``outcomes``: outcome of the item's own prompt → flags;
    ``generated``: the greedy completion is ``new``, after normalisation; ``begins``: it begins with the tokens of
    ``new``; ``preferred``: log p(new) > log p(old), summed over tokens; ``believed``: it begins with the tokens of
    ``old``, or log p(old) > log p(new). ``front``: benchmark → which probes are answered right with the sentence of an
    edit in front; with n items, probe k (counted over all benchmarks) gets item k mod n. ``means``: category or all →
    figure → mean over the items (:mod:`hiplora.evaluation.edit_measures` defines the figures), log-probabilities in
    nats.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    categories: dict[str, str]
    outcomes: dict[str, str]
    front: dict[str, str]
    means: dict[str, dict[str, float]]


class Edited(Result):
    """A model's answers on batches of edits (kind ``edit``).

    ``right``: benchmark → which unrelated probes it answers right, as a string of 0 and 1.
    """

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
