"""Singular subspaces of a backbone: recipes, a verified cache, and principal angles.

The names below are loaded when they are first asked for, so that importing ``spectral.options`` loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hiplora.spectral.angles import principal_angles, sketch
    from hiplora.spectral.cache import Directions, load_or_compute, weights_hash
    from hiplora.spectral.recipes import RECIPES, Basis, resolve_recipe, truncated_svd

__all__ = [
    "RECIPES",
    "Basis",
    "Directions",
    "load_or_compute",
    "principal_angles",
    "resolve_recipe",
    "sketch",
    "truncated_svd",
    "weights_hash",
]
_MODULES = {
    "angles": ("principal_angles", "sketch"),
    "cache": ("Directions", "load_or_compute", "weights_hash"),
    "recipes": ("RECIPES", "Basis", "resolve_recipe", "truncated_svd"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
