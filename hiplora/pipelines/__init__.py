"""What a run can do. One file per pipeline; :data:`PIPELINES` is the list."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from hiplora.errors import UserError

if TYPE_CHECKING:
    from hiplora.pipelines.base import Pipeline

PIPELINES: dict[str, str] = {
    "train": "hiplora.pipelines.train:TrainOnly",
    "backbone": "hiplora.pipelines.backbone:BackboneOnly",
    "single": "hiplora.pipelines.single:Single",
    "merge": "hiplora.pipelines.merge:Merge",
    "continual": "hiplora.pipelines.continual:Continual",
    "frontier": "hiplora.pipelines.frontier:FrontierOnly",
    "curve": "hiplora.pipelines.frontier:CurveOnly",
    "matched_merge": "hiplora.pipelines.matched_merge:MatchedMerge",
    "select": "hiplora.pipelines.select:Select",
    "probe": "hiplora.pipelines.probe:ProbeBackbone",
    "evaluate": "hiplora.pipelines.evaluate:Evaluate",
    "drift": "hiplora.pipelines.drift:DriftOfAdapter",
    "edit": "hiplora.pipelines.edit:EditFacts",
    "efficiency": "hiplora.pipelines.efficiency:EfficiencyOfMethods",
}


def pipeline_class(name: str) -> type[Pipeline]:
    """The class of a pipeline; its fields are its options.

    Raises:
        UserError: there is none of this name.
    """
    if name not in PIPELINES:
        raise UserError(f"pipeline={name} is not known; choose one of {', '.join(PIPELINES)}.")
    module, attribute = PIPELINES[name].split(":")
    return getattr(import_module(module), attribute)
