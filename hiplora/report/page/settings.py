"""The settings of a record compared with those of conf/."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hiplora.compose import compose_cached
from hiplora.conf_dir import CONF_DIR
from hiplora.config import neutral
from hiplora.errors import UserError
from hiplora.pipelines.base import known, scores, training
from hiplora.report.runs.fields import Fields, Value, asked, flat, shown
from hiplora.stages.record import Record

NO_DATA = ("custom",)  # tasks whose data conf/ does not name, so that their configuration does not compose
DATA = "data"  # the name under which a run's list shows the beginning of the digest of such a task's file
BACKBONE = "reads.backbone"  # the digest of the backbone's files
EDITS = "edits"  # the task of a training by pipeline=edit
SINGLE = ("train", "score")  # kinds of stages of pipeline=single; other kinds are called as their pipelines are
# Part of a run's title; and the points of a frontier or a merge, which pipelines choose.
TITLE = ("method", "task", "seed", "of", "operator", "scale", "scales", "norms", "fractions")


def of_all_runs(words: Sequence[str]) -> list[str]:
    """The overrides that all runs of a folder share: without those that name a task of one's own and its data."""
    own = any(word.partition("=")[::2] == ("task", name) for word in words for name in NO_DATA)
    return [word for word in words if not (own and word.partition("=")[0].partition(".")[0].lstrip("+~") == "task")]


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
        return ", ".join(dict.fromkeys(f"{name.rpartition('.')[2]}={shown(value)}" for name, value, _ in plain))

    def without(self, other: Settings) -> Settings:
        """These settings without those that the record ``other`` has, too."""
        theirs = {*other.every, *(name for name, _, _ in other.changed)}
        return Settings(tuple(each for each in self.changed if each[0] not in theirs), self.every, self.reason)


class Defaults:
    """The settings of conf/ by method, task and operator; ``words`` are the overrides of all runs of the folder."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = list(words)
        self._known: dict[tuple[str, ...], tuple[Fields, Fields] | str] = {}

    def of(self, record: Record) -> Settings:
        """The settings of a record, compared with those of conf/."""
        every = asked(record)
        found = self._plain(record.kind, every)
        if isinstance(found, str):
            return Settings((), every, found)
        plain, unnamed = found
        # A field that a description leaves out at a constant has that constant, if the record has the field's section.
        sections = {name.rpartition(".")[0] for name in every}
        ours = {**{n: value for n, value in unnamed.items() if n.rpartition(".")[0] in sections}, **every}
        plain = {**unnamed, **plain}
        # The adapters of a merge have their own tasks, and a task that reads a file of the user's has no settings here.
        apart = "," in str(every.get("task")) or every.get("task") in NO_DATA
        shared = [name for name in {**every, **ours} if name in plain and name not in TITLE]
        shared = [name for name in shared if not (apart and name.startswith(("task.", "reads.")) and name != BACKBONE)]
        differing = tuple((n, ours[n], plain[n]) for n in shared if ours[n] != plain[n])
        return Settings((*(_of_own_task(every) if every.get("task") in NO_DATA else ()), *differing), every)

    def _plain(self, kind: str, every: Fields) -> tuple[Fields, Fields] | str:
        """The settings of conf/, and the constants of those that are left out at one; or why there are none."""
        chosen = {"merge" if name == "operator" else name: every[name] for name in ("method", "task", "operator")
                  if name in every and every[name] not in NO_DATA}  # fmt: skip
        pipeline = "edit" if every.get("task") == EDITS else kind
        chosen |= {"pipeline": pipeline} if pipeline not in SINGLE else {}
        words = tuple(f"{group}={name}" for group, name in chosen.items() if _option(group, str(name)))
        if (kind, *words) not in self._known:
            try:
                self._known[kind, *words] = self._composed(kind, words)
            except UserError as error:
                self._known[kind, *words] = str(error)
        return self._known[kind, *words]

    def _composed(self, kind: str, words: Sequence[str]) -> tuple[Fields, Fields]:
        config = compose_cached([*self._words, *words])
        of_kind = [stage for stage in known(config, lambda stage: None)[0] if stage.kind == kind]
        # The last one is of an adapter, and its settings include those of the backbone's.
        stage = of_kind[-1] if of_kind else scores(config, training(config))
        described = {k: v for k, v in stage.described().items() if k != "kind"}
        return (
            flat({**described, "operator": config.merge.described()}),
            flat({**neutral(stage), "operator": neutral(config.merge)}),
        )


def _of_own_task(every: Fields) -> Iterator[tuple[str, Value, Value]]:
    """How a task of one's own differs from its file in conf/, and which data it has, by the digest's beginning."""
    import yaml

    name = str(every["task"])
    data = next((value for key, value in every.items() if key.startswith(f"reads.{name}/train")), None)
    if data is not None:
        yield f"task.{DATA}", str(data)[:8], None
    plain = flat({"task": yaml.safe_load((CONF_DIR / "task" / f"{name}.yaml").read_text(encoding="utf-8"))})
    for field, default in plain.items():
        option = field.removeprefix("task.")
        ours = every.get(f"benchmarks.{name}.{option}", every.get(field, default))
        if ours != default:
            yield field, ours, default


def _option(group: str, name: str) -> bool:
    return (CONF_DIR / group / f"{name}.yaml").is_file()
