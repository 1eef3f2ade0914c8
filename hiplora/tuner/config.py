"""Options of a HiP-LoRA adapter, the content of its adapter_config.json."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from peft import LoraConfig

from hiplora.errors import UserError
from hiplora.tuner.options import check_options

# LoRA's own extensions replace the update or the initialisation; combined with ours they would drop φ or
# move the weights whose singular basis we keep.
REFUSED = (
    *("use_dora", "use_qalora", "use_bdlora", "lora_bias", "fan_in_fan_out", "alora_invocation_tokens"),
    *("target_parameters", "layer_replication", "megatron_config", "loftq_config", "eva_config"),
    *("corda_config", "lora_ga_config", "velora_config", "monteclora_config", "kasa_config", "arrow_config"),
)


class HipPeftType(str, Enum):  # noqa: UP042  (PEFT reads str(member), which must name the class as its own does)
    """The method's name in adapter_config.json, shaped like a member of PEFT's own enum."""

    HIPLORA = "HIPLORA"


@dataclass
class HipConfig(LoraConfig):
    """Options of ΔW = U diag(φ) Vᵀ + s (I − UUᵀ) B A (I − VVᵀ), U and V the k leading singular directions of a weight.

    LoRA's options (``target_modules``, ``modules_to_save``, ``rank_pattern`` …) work as in PEFT, except those in
    ``REFUSED``. An option of these and a value out of its range raise UserError.

    - r: rank of the residual path.
    - k: number of singular directions: of the principal channel, or with ``principal=False`` of the subspaces that
      the residual avoids.
    - lora_alpha: s = lora_alpha / r; None stands for 2 r.
    - lora_dropout: acts on the residual path's input only.
    - principal: False is Proj-LoRA (no φ).
    - project_residual: whether ``retract`` keeps the residual out of the principal subspaces.
    - basis, basis_seed: ``random`` replaces the singular directions by k random ones, drawn from ``basis_seed`` and
      the module's name; a control of Proj-LoRA.
    - side: ``inside`` confines the update to the directions, ΔW = s UUᵀ B A VVᵀ; a control of Proj-LoRA.
    - parameterization: ``relative`` trains δ with φ = σ ⊙ δ.
    - zero_init: start from φ = −σ.
    - stability, gamma: λ and γ of the penalty λ Σ w_i φ_i² with w_i = σ_i^γ / mean_j σ_j^γ.
    - lr_scale: learning rate of φ divided by that of A. The optimizer applies it if its groups are those of
      ``HipLoraModel.param_groups``; HipLoraCallback refuses other rates.
    - k_max, svd_*: how the basis is computed, see ``hiplora.spectral``. ``svd_cache_dir`` is not saved.
    - save_basis: save U and V with the adapter, so that loading needs no SVD.
    - svd_key: identity of the basis, written by the tuner.
    """

    r: int = field(default=16)
    lora_alpha: int | None = field(default=None)  # type: ignore[assignment]
    lora_dropout: float = field(default=0.05)
    # The mark makes stock LoRA layers refuse this configuration instead of ignoring φ.
    k: int = field(default=32, metadata={"is_lora_variant": True})
    basis: str = field(default="singular")
    basis_seed: int = field(default=0)
    side: str = field(default="outside")
    principal: bool = field(default=True)
    project_residual: bool = field(default=True)
    parameterization: str = field(default="absolute")
    zero_init: bool = field(default=False)
    stability: float = field(default=0.1)
    gamma: float = field(default=1.0)
    lr_scale: float = field(default=1.0)
    k_max: int = field(default=64)
    svd_recipe: str = field(default="auto")
    svd_seed: int = field(default=0)
    svd_oversampling: int = field(default=8)
    svd_power_iterations: int = field(default=2)
    svd_tolerance: float = field(default=1e-3)
    svd_exact_up_to: int = field(default=2048)
    svd_cache_dir: str | None = field(default=None)
    save_basis: bool = field(default=False)
    svd_key: str | None = field(default=None)

    def __post_init__(self) -> None:
        check_options(**vars(self))
        if self.lora_alpha is None:
            self.lora_alpha = 2 * self.r
        self._check_refused()  # before PEFT, which drops some of these with no more than a warning
        # Whether this was read from a file: only there the method's name is a plain string beside PEFT's version.
        self._saved = type(self.peft_type) is str and self.peft_version is not None
        super().__post_init__()
        self.peft_type = HipPeftType.HIPLORA  # type: ignore[assignment]
        # Where from_pretrained found this configuration: the saved basis and its sketches are in the same folder.
        self._source: tuple[str, dict[str, Any]] | None = None

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str, subfolder: str | None = None, **kwargs: Any
    ) -> HipConfig:
        """PEFT's ``from_pretrained``, which also stores where the adapter was found."""
        path = pretrained_model_name_or_path
        config = super().from_pretrained(path, subfolder=subfolder, **kwargs)
        hub = {name: kwargs[name] for name in ("revision", "cache_dir", "token") if kwargs.get(name)}
        config._source = (os.fspath(path), hub | ({"subfolder": subfolder} if subfolder else {}))
        return config

    def to_dict(self) -> dict[str, Any]:
        """Every option except ``svd_cache_dir``, which belongs to this machine."""
        options = super().to_dict()
        options.pop("svd_cache_dir")
        return options

    @property
    def svd_options(self) -> dict[str, Any]:
        """Keyword arguments of ``hiplora.spectral.load_or_compute`` that determine the basis."""
        names = ("recipe", "seed", "oversampling", "power_iterations", "tolerance", "exact_up_to")
        return {"k_max": self.k_max} | {name: getattr(self, f"svd_{name}") for name in names}

    @property
    def basis_options(self) -> dict[str, Any]:
        """The options that determine U and V: adapters with equal ones share one basis."""
        if self.basis == "random":
            return {"basis": self.basis, "seed": self.basis_seed, "k": self.k}
        return self.svd_options

    @property
    def cache_dir(self) -> Path | None:
        """Folder of the SVD cache, None for the default."""
        return None if self.svd_cache_dir is None else Path(self.svd_cache_dir)

    def _check_refused(self) -> None:
        for name in REFUSED:
            value = getattr(self, name)
            if value or (value == {} and name != "loftq_config"):  # {} means all defaults, except for LoftQ
                raise UserError(
                    f"{name}={value!r} does not go together with HiP-LoRA: it would replace the update or part "
                    "of it; drop it or use peft.LoraConfig."
                )
