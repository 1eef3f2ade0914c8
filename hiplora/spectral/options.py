"""The options of the SVD of the frozen matrices; loads no torch."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from hiplora.config import Natural, Options, Positive, Seed
from hiplora.errors import UserError
from hiplora.spectral.names import MOST_OVERSAMPLING, MOST_POWER_ITERATIONS, RECIPES, TOLERANCES


class Svd(Options):
    """Options of the section ``svd``; see :mod:`hiplora.spectral.recipes`."""

    group: ClassVar[str] = "svd"

    recipe: str
    k_max: Positive
    seed: Seed
    oversampling: Annotated[int, Field(ge=0, le=MOST_OVERSAMPLING)]
    power_iterations: Annotated[int, Field(ge=0, le=MOST_POWER_ITERATIONS)]
    tolerance: Annotated[float, Field(ge=TOLERANCES[0], le=TOLERANCES[1], examples=[1e-3])]
    exact_up_to: Natural

    def check_options(self) -> None:
        if self.recipe not in RECIPES:
            raise UserError(f"svd.recipe={self.recipe} is not known; choose one of {', '.join(RECIPES)}.")
