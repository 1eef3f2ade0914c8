"""Singular subspaces of a backbone: recipes, a verified cache, and principal angles.

Importing the package does not load torch; importing its names does.
"""

from __future__ import annotations

from hiplora.lazy import lazily
from hiplora.spectral.names import RECIPES

_EXPORTS = {
    "Basis": "hiplora.spectral.recipes",
    "Directions": "hiplora.spectral.cache",
    "load_or_compute": "hiplora.spectral.cache",
    "principal_angles": "hiplora.spectral.angles",
    "resolve_recipe": "hiplora.spectral.recipes",
    "sketch": "hiplora.spectral.angles",
    "truncated_svd": "hiplora.spectral.recipes",
    "weights_hash": "hiplora.spectral.cache",
}
__all__ = ["RECIPES", *_EXPORTS]
__getattr__ = lazily(__name__, _EXPORTS)
