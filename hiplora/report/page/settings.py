"""The settings of a record compared with those of conf/."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hiplora.compose import compose_cached
from hiplora.conf_dir import CONF_DIR
from hiplora.errors import UserError
from hiplora.pipelines.base import scores, training
from hiplora.report.runs.fields import Fields, Value, asked, flat, shown
from hiplora.stages.record import Record

NO_DATA = ("custom",)  # tasks whose data conf/ does not name
TITLE = ("method", "task", "seed", "of", "operator")  # part of a run's title


@dataclass(frozen=True)
class Settings:
    """A record's settings: ``changed`` are (name, value, value of conf/); ``reason`` says why nothing was compared."""

    changed: tuple[tuple[str, Value, Value], ...]
    every: Fields
    reason: str = ""

    @property
    def words(self) -> str:
        """The differences as a short text for the list of runs, without files and versions."""
        plain = [each for each in self.changed if not each[0].startswith("reads.") and "version" not in each[0]]
        return ", ".join(f"{name.rpartition('.')[2]}={shown(value)}" for name, value, _ in plain)


class Defaults:
    """The settings of conf/ by method, task and operator; ``words`` are the overrides of all runs of the folder."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = list(words)
        self._known: dict[tuple[str, ...], Fields | str] = {}

    def of(self, record: Record) -> Settings:
        """The settings of a record, compared with those of conf/."""
        every = asked(record)
        plain = self._plain(every)
        if isinstance(plain, str):
            return Settings((), every, plain)
        # The adapters of a merge have their own tasks, and a task that reads a file of the user's has no settings here.
        apart = "," in str(every.get("task")) or every.get("task") in NO_DATA
        shared = [name for name in every if name in plain and name not in TITLE]
        shared = [name for name in shared if not (apart and name.startswith(("task.", "reads.")))]
        return Settings(tuple((n, every[n], plain[n]) for n in shared if every[n] != plain[n]), every)

    def _plain(self, every: Fields) -> Fields | str:
        chosen = {"merge" if name == "operator" else name: every[name] for name in ("method", "task", "operator")
                  if name in every and every[name] not in NO_DATA}  # fmt: skip
        words = tuple(f"{group}={name}" for group, name in chosen.items() if _option(group, str(name)))
        if words not in self._known:
            try:
                self._known[words] = self._composed(words)
            except UserError as error:
                self._known[words] = str(error)
        return self._known[words]

    def _composed(self, words: Sequence[str]) -> Fields:
        config = compose_cached([*self._words, *words])
        score = scores(config, training(config)).described()
        return flat({**{k: v for k, v in score.items() if k != "kind"}, "operator": config.merge.described()})


def _option(group: str, name: str) -> bool:
    return (CONF_DIR / group / f"{name}.yaml").is_file()
