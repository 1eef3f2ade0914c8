"""Names that configurations check and that need no torch."""

from __future__ import annotations

from typing import Final

RECIPES: Final = ("auto", "exact", "converged", "randomized")
