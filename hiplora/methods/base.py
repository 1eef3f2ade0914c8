"""The interface of a fine-tuning method: its options, its adapter, its part in training, its update.

Every method is one class. Its fields are those of ``conf/method/<name>.yaml``, checked on construction; its methods are
hooks, most with a default that fits a plain LoRA. No other code depends on which method runs. torch and PEFT are
imported inside the hooks, so that configuration stays light.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from hiplora.config import Options
from hiplora.errors import UserError
from hiplora.tuner.options import MOST_ALPHA

MOST_RANK = 10**6  # before the matrices are known; then check_rank has the tighter bound
Ratio = Annotated[float, Field(ge=1e-4, le=1e4, examples=[16.0])]  # of a learning rate to another

if TYPE_CHECKING:
    from pathlib import Path

    from peft import PeftConfig, PeftModel
    from torch import Tensor, nn

    from hiplora.spectral.options import Svd
    from hiplora.training.options import Training
    from hiplora.updates import Update


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Everything but the method's own options that a fresh adapter needs; ``svd`` is None unless the method uses it."""

    targets: tuple[str, ...]
    svd: Svd | None
    training: Training
    save_basis: bool = False


class Method(Options):
    """Base of all methods; ``name`` is its key in METHODS."""

    group: ClassVar[str] = "method"
    uses_svd: ClassVar[bool] = False  # whether the SVD settings are part of what identifies the adapter
    parity_exception: ClassVar[str | None] = None  # why its parameter counts are not LoRA's, to within 1 %
    full_rank: ClassVar[bool] = False  # whether its updates are full matrices, which only dense operators merge
    channel: ClassVar[bool] = False  # whether it has a principal channel, whose share of the energy tables check
    fresh_factors: ClassVar[bool] = False  # whether a continued training adds new tensors to the old ones

    name: str

    @property
    def shards(self) -> int:
        """Number of parts of the training data: a micro-batch holds rows of one, a step equally many rows of each."""
        return 1

    def peft_config(self, *, setup: Setup) -> PeftConfig:
        """The PEFT configuration of a fresh adapter."""
        raise NotImplementedError(f"{type(self).__name__} has no PEFT configuration")

    def check_svd(self, svd: Svd) -> None:
        """Check the options against those of the SVD, if the method uses it. Raises UserError."""

    def check(self, shapes: Mapping[str, tuple[int, int]]) -> None:
        """Check the options against the (out, in) shapes of the matrices to adapt. Raises UserError."""

    def attach(self, backbone_model: nn.Module, *, setup: Setup) -> PeftModel:
        """The backbone with a fresh adapter; the caller has seeded the generators."""
        from peft import get_peft_model

        return get_peft_model(backbone_model, self.peft_config(setup=setup))  # type: ignore[arg-type]

    def load(self, backbone_model: nn.Module, adapter_dir: Path) -> PeftModel:
        """The backbone with a trained adapter from its folder, ready to be evaluated."""
        from peft import PeftModel

        from hiplora.tuner.registration import register

        register()
        return PeftModel.from_pretrained(backbone_model, str(adapter_dir))  # type: ignore[arg-type]

    def detach(self, peft_model: PeftModel) -> nn.Module:
        """The backbone as it was before :meth:`attach`."""
        backbone = peft_model.unload()
        if hasattr(backbone, "peft_config"):  # PEFT's mark, at which the next attach would warn
            del backbone.peft_config
        return backbone

    def param_groups(self, peft_model: PeftModel, *, training: Training) -> list[dict[str, Any]]:
        """AdamW's parameter groups: all trainable parameters, which are the adapter's, with weight decay."""
        parameters = [parameter for parameter in peft_model.parameters() if parameter.requires_grad]
        return [{"params": parameters, "lr": training.lr, "weight_decay": training.weight_decay}]

    def extra_loss(self, peft_model: PeftModel) -> Tensor | None:
        """A scalar tensor to add to the loss of each optimizer step, or None.

        It is called for every micro-batch; the trainer divides it by the number of micro-batches in the step.
        """
        return None

    def before_micro_batch(self, peft_model: PeftModel, shard: int) -> None:
        """Called before the forward pass of every micro-batch, whose rows come from part ``shard`` of the data."""

    def after_step(self, peft_model: PeftModel, step: int) -> None:
        """Called right after the optimizer's step number ``step``, counted from 1."""

    def state(self, peft_model: PeftModel) -> dict[str, Any]:
        """What a continued training needs besides the trainable parameters: tensors and plain values."""
        return {}

    def load_state(self, peft_model: PeftModel, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` returned."""

    def put_back(self, peft_model: PeftModel, native: Mapping[str, Any]) -> None:
        """Restore the adapter of a checkpoint or of a finished training into a fresh one.

        ``native`` holds ``adapter``, the trained tensors by name, and ``method``, what :meth:`state` returned.

        Raises:
            UserError: the tensors belong to an adapter with other options or on other matrices.
        """
        import torch

        trained = {name: p for name, p in peft_model.named_parameters() if p.requires_grad}
        kept = native["adapter"]
        fits = trained.keys() == kept.keys() and all(p.shape == kept[name].shape for name, p in trained.items())
        require(
            fits,
            f"the tensors to continue from do not fit method={self.name} with these options on these matrices: "
            "give the options of the training that wrote them",
        )
        with torch.no_grad():
            for name, parameter in trained.items():
                parameter.copy_(kept[name])
        self.load_state(peft_model, native["method"])

    def restart(self, peft_model: PeftModel) -> None:
        """Reset what belongs to a finished training, such as a schedule; the update does not change."""

    def go_on(self, peft_model: PeftModel, native: Mapping[str, Any]) -> None:
        """Restore a trained adapter, to be trained further with a fresh optimizer. Raises as :meth:`put_back`."""
        self.put_back(peft_model, native)
        self.restart(peft_model)

    def finish(self, peft_model: PeftModel) -> None:
        """Called once after the last step: reduce the model to the one adapter that is saved and evaluated."""

    def save(self, peft_model: PeftModel, folder: Path) -> None:
        """Write the adapter folder that :meth:`load` reads."""
        peft_model.save_pretrained(str(folder))

    def updates(self, peft_model: PeftModel) -> dict[str, Update]:
        """The trained update ΔW (out, in) of every adapted matrix, by module name in the backbone; detached, fp32."""
        raise NotImplementedError(f"{type(self).__name__} does not return its updates")

    def deployed_parameters(self, peft_model: PeftModel) -> int:
        """Numbers in a stored adapter, which parity between methods compares."""
        prefix, adapter = str(peft_model.base_model.prefix), active_adapter(peft_model)
        held = (p for name, p in peft_model.named_parameters() if prefix in name and adapter in name.split("."))
        return sum(parameter.numel() for parameter in held)


def active_adapter(peft_model: PeftModel) -> str:
    """The name of the one active adapter."""
    (name,) = peft_model.active_adapters
    return name


def with_rate(groups: Sequence[dict[str, Any]], parameters: Sequence[Any], factor: float) -> list[dict[str, Any]]:
    """AdamW's groups, with ``parameters`` moved to a new last group.

    The new group has the first group's options, with its learning rate multiplied by ``factor``.
    """
    chosen = {id(parameter) for parameter in parameters}
    rest = [{**group, "params": [p for p in group["params"] if id(p) not in chosen]} for group in groups]
    return [*rest, {**groups[0], "params": [*parameters], "lr": groups[0]["lr"] * factor}]


def lora_plus(groups: list[dict[str, Any]], peft_model: PeftModel, ratio: float) -> list[dict[str, Any]]:
    """The groups of LoRA+ (Hayou et al. 2024): every trained B has ``ratio`` times A's learning rate; 1 is LoRA."""
    if ratio == 1:
        return groups
    named = peft_model.named_parameters()
    return with_rate(groups, [p for name, p in named if p.requires_grad and ".lora_B." in name], ratio)


def require(condition: bool, sentence: str) -> None:
    """Raise UserError with the sentence unless the condition holds."""
    if not condition:
        raise UserError(sentence)


def check_residual_options(*, r: int, alpha: float | None, dropout: float, rank: str = "r") -> None:
    """Check the options of every low-rank path; ``rank`` is the option's name of r. Raises UserError."""
    require(1 <= r <= MOST_RANK, f"method.{rank}={r} must be a rank: give a whole number from 1, such as 16")
    require(alpha is None or alpha > 0, f"method.alpha={alpha} must be above 0, or null for twice the rank")
    require(
        alpha is None or alpha <= MOST_ALPHA, f"method.alpha={alpha} must be at most {MOST_ALPHA:g}, such as {2 * r}"
    )
    require(0 <= dropout < 1, f"method.dropout={dropout} must be in [0, 1)")


def check_directions_suffice(k: int, svd: Svd) -> None:
    """Refuse a k above the number of directions computed. Raises UserError."""
    require(
        k <= svd.k_max,
        f"method.k={k} exceeds svd.k_max={svd.k_max}, the number of directions computed; raise svd.k_max.",
    )


def check_rank(option: str, value: int, shapes: Mapping[str, tuple[int, int]]) -> None:
    """Refuse a rank above the smaller side of a matrix. Raises UserError."""
    for name, shape in shapes.items():
        require(
            value <= min(shape),
            f"{option}={value} exceeds the smaller side of {name} ({shape[0]} × {shape[1]}): "
            f"choose at most {min(min(each) for each in shapes.values())}",
        )
