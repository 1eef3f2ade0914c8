"""Stages without torch: a seed is sown, which leaves a folder, and reaped, which reads it.

python -m tests.stages.toys OUTPUTS RESULTS [force] [slow] [grid] [together]

    sow and reap, or eight times, in a process; ``together`` with a second one, whichever imports faster
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any, ClassVar

from hiplora.config import Bookkeeping
from hiplora.disk import new_folder, write_json
from hiplora.errors import UserError
from hiplora.parts import key
from hiplora.stages.base import Job, Made, Stage
from hiplora.stages.make import Engine, Wanted
from hiplora.stages.results import RESULTS, Result
from hiplora.stages.store import DIGEST, Places, Store
from hiplora.tracking import Tracking

SLOW = 0.0  # seconds that each part of a harvest takes
SOIL = Path("soil")  # a file in the working directory that decides what grows: another machine's arithmetic, say


class Plant(Result):
    """How tall; ``seconds`` differ between two runs that gave the same."""

    height: int
    seconds: float

    def reproducible(self) -> Any:
        return self.height


class Harvest(Result):
    """What was weighed, part by part."""

    weights: list[int]

    def reproducible(self) -> Any:
        return self.weights


RESULTS |= {"sow": Plant, "reap": Harvest}


class Sow(Stage):
    """Leaves a folder with the height, which depends on the soil."""

    kind: ClassVar[str] = "sow"
    artefact: ClassVar[bool] = True

    seed: int
    after: Sow | None = None
    note: Annotated[str, Bookkeeping] = ""

    def needs(self) -> tuple[Stage, ...]:
        return () if self.after is None else (self.after,)

    def where(self) -> str:
        return "garden"

    def name(self) -> str:
        return f"plant-{self.seed}"

    def check(self) -> None:
        if self.seed < 0:
            raise UserError(f"seed={self.seed} does not grow; give 0 or more.")

    def run(self, job: Job) -> Made:
        time.sleep(SLOW)
        soil = int(SOIL.read_text()) if SOIL.is_file() else 0
        height = self.seed + soil + sum(need.result.height for need in job.needs.values())
        with new_folder(job.folder) as folder:
            (folder / "height").write_text(str(height))
            write_json(folder / DIGEST, {"tensors": height, "files": {}})
        return Made(Plant(height=height, seconds=time.perf_counter()), "a bed")


class Reap(Stage):
    """Weighs a plant in parts, each kept when it is done."""

    kind: ClassVar[str] = "reap"

    plant: Sow
    parts: int = 3

    def needs(self) -> tuple[Stage, ...]:
        return (self.plant,)

    def where(self) -> str:
        return "garden"

    def name(self) -> str:
        return f"harvest-{self.plant.seed}"

    def run(self, job: Job) -> Made:
        height = int((job.artefacts[self.plant.id] / "height").read_text())
        for part in range(self.parts):
            if job.parts.get(key(part)) is None:
                print(f"weighing {part}", flush=True)
                time.sleep(SLOW)
                job.parts.keep({key(part): height * 10 + part})
        return Made(Harvest(weights=[job.parts.get(key(part)) for part in range(self.parts)]), "a scale")


def engine(outputs: Path, results: Path, *, force: bool = False) -> Engine:
    places = Places(outputs=outputs, results=results / "toys")
    return Engine(Store(places), Tracking(enabled=False, folder=outputs), force=force)


def wait_for_another(folder: Path) -> None:
    """Until a second process has come as far as this one."""
    (folder / f"ready-{os.getpid()}").touch()
    deadline = time.monotonic() + 50  # less than the tests wait, so that nothing is left running
    while len(list(folder.glob("ready-*"))) < 2:
        assert time.monotonic() < deadline, "there is no other process"
        time.sleep(0.001)


if __name__ == "__main__":
    SLOW = 0.2 if "slow" in sys.argv else 0.0
    plants = [Sow(seed=seed) for seed in (range(8) if "grid" in sys.argv else [3])]
    asked = [wanted for plant in plants for wanted in (Wanted(plant), Wanted(Reap(plant=plant)))]
    if "together" in sys.argv:
        wait_for_another(Path(sys.argv[1]).parent)
    engine(Path(sys.argv[1]), Path(sys.argv[2]), force="force" in sys.argv).run(asked)
