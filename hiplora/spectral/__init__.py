"""Singular subspaces of a backbone: recipes, a verified cache, and principal angles."""

from __future__ import annotations

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
