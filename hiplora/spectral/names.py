"""The names of SVD recipes, which configurations check without loading torch."""

from __future__ import annotations

from typing import Final

RECIPES: Final = ("auto", "exact", "converged", "randomized")
