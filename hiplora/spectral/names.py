"""The names of SVD recipes and the ranges of their options, which configurations check without loading torch."""

from __future__ import annotations

from typing import Final

RECIPES: Final = ("auto", "exact", "converged", "randomized")
MOST_OVERSAMPLING: Final = 10_000
MOST_POWER_ITERATIONS: Final = 1000
TOLERANCES: Final = (1e-8, 0.5)  # least and most
