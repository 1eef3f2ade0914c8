"""Exports a HiP-LoRA folder as a stock PEFT LoRA folder.

The update is exactly a LoRA of rank k + r, or r without a principal channel (``Principal.factors``), so there is no
approximation.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from hiplora.adapters.card import Card, base_in_card, write_card
from hiplora.adapters.hip import read_hiplora
from hiplora.adapters.results import check_result, result_folder
from hiplora.adapters.writing import write_lora
from hiplora.tuner.identity import PREFIX

if TYPE_CHECKING:
    from hiplora.tuner.config import HipConfig

COMMAND = "hiplora-export"
_CARRIED = (
    *("task_type", "auto_mapping", "base_model_name_or_path", "revision", "target_modules", "exclude_modules"),
    *("layers_to_transform", "layers_pattern", "bias", "modules_to_save", "trainable_token_indices"),
    *("ensure_weight_tying", "lora_dropout"),
)


def export_lora(
    adapter_dir: str | Path, out_dir: str | Path, *, backbone: str | Path | nn.Module | None = None
) -> Path:
    """Write the adapter in ``adapter_dir`` to ``out_dir`` as a stock PEFT LoRA with scaling 1 and the same update.

    B' (m, k + r) = [U diag(φ), s B], A' (k + r, n) = [Vᵀ; A], in fp32; without a principal channel B' = s B, A' = A.
    All modules have the largest rank, padded with zeros. ``modules_to_save`` and other saved tensors are
    copied. ``out_dir`` is returned; it is complete, or unchanged after an error.

    Args:
        backbone: a loaded model or a folder; None for the adapter's ``base_model_name_or_path``. It is used only if
            the adapter has no U and V (``save_basis``); these then come from the SVD cache or are computed.

    Raises:
        UserError: ``adapter_dir`` holds no HiP-LoRA adapter, the backbone is not the adapter's, ``out_dir`` holds
            anything but an unchanged earlier export, or the disk is full.
    """
    source, out = Path(adapter_dir), Path(out_dir)
    inputs = [source] if isinstance(backbone, nn.Module) or backbone is None else [source, Path(backbone)]
    check_result(out, command=COMMAND, option="OUT", inputs=inputs)
    config, updates, rest = read_hiplora(source, backbone=backbone)
    with result_folder(out, command=COMMAND, option="OUT", inputs=inputs) as folder:
        report = write_lora(
            updates,
            folder,
            beside={PREFIX + key: tensor for key, tensor in rest.items()},
            **{name: getattr(config, name) for name in _CARRIED},
        )
        write_card(folder, _card(source, config, rank=report["rank"]))
    return out


def _card(source: Path, config: HipConfig, *, rank: int) -> Card:
    """The card of an export; it refers to the source's card for scores, as the update is the same."""
    parts = f": {config.k} singular directions and a residual of rank {rank - config.k}" if config.principal else ""
    return Card(
        title=f"{source.resolve().name} as a stock LoRA",
        about=(
            "A HiP-LoRA adapter written as a stock LoRA by `hiplora-export`. The update is the same, so scores in the "
            "card of the HiP-LoRA adapter hold for it too."
        ),
        settings={
            "Rank": f"{rank}{parts}",
            "Scaling": "1 (lora_alpha is the rank)",
        },
        base=base_in_card(source),
        tags=("hiplora",),
    )
