"""From overrides as a user types them to a typed configuration, without starting a run."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiplora import conf_dir
from hiplora.command_line import quoted_options
from hiplora.conf_dir import check_conf
from hiplora.config import Options, digest
from hiplora.disk import default_cache_dir, json_object, write_json
from hiplora.errors import UserError
from hiplora.evaluation.lm_tasks import LmTasks, parted
from hiplora.evaluation.options import Evaluation
from hiplora.merging import operator_class
from hiplora.methods import method_class
from hiplora.models import Model
from hiplora.pipelines import pipeline_class
from hiplora.pipelines.base import Config
from hiplora.spectral.options import Svd
from hiplora.tasks import ORDER, TASKS, task_class
from hiplora.tasks.base import Task
from hiplora.tasks.edits import Edits
from hiplora.tasks.source import Data
from hiplora.training.options import Training

if TYPE_CHECKING:
    from omegaconf import DictConfig


def typed(config: DictConfig, words: Sequence[str]) -> Config:
    """The typed configuration from what Hydra composed; ``words`` are the overrides that it was composed from.

    Raises:
        UserError: one sentence on the first error.
    """
    return build(_plain(config), words)


def _plain(config: DictConfig, *, missing: bool = False) -> dict[str, Any]:
    """The plain, resolved dictionary of what Hydra composed; with ``missing``, a field without a value is ``???``.

    Raises:
        UserError: a reference leads nowhere, or (unless ``missing``) a field has no value.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

    try:
        raw: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=not missing)
    except InterpolationResolutionError as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(f"{error.full_key}: {reason}; name a key of this configuration in ${{…}}.") from None
    except OmegaConfBaseException as error:
        key = _typed(getattr(error, "full_key", None) or "a field", config)
        raise UserError(f"{key} has no value; add {key}=… to the command.") from None
    return raw


def _typed(key: str, config: DictConfig) -> str:
    """A key of the configuration as it is typed on the command line: ``adapter`` for ``pipeline.adapter``."""
    group, _, field = key.partition(".")
    if group != "pipeline" or not field:
        return key
    return pipeline_class(str(config.pipeline.name)).typed_as(field)


SECTIONS: dict[str, type[Options]] = {
    "model": Model,
    "data": Data,
    "svd": Svd,
    "training": Training,
    "edits": Edits,
}
CHOICES: dict[str, Callable[[str], type[Options]]] = {
    "pipeline": pipeline_class,
    "method": method_class,
    "merge": operator_class,
}
PLAIN = ("scale", "logging", "force", "save_basis", "outputs_dir", "results_dir")
BUDGETS = ("merging", "efficiency")  # sections of conf/scale that options of a pipeline refer to


def build(raw: Mapping[str, Any], words: Sequence[str] = ()) -> Config:
    """The typed configuration from the plain, resolved dictionary that Hydra composed from the overrides ``words``.

    Raises:
        UserError: an unknown or missing key, a value of the wrong type or out of its range.
    """
    groups = (*SECTIONS, *CHOICES, "task", "evaluation", "seed")
    if unknown := sorted(set(raw) - {*groups, *PLAIN, *BUDGETS}):
        raise UserError(f"{', '.join(unknown)}: no such key; see conf/config.yaml for the existing ones.")
    if absent := [key for key in (*groups, *PLAIN) if raw.get(key) is None]:
        raise UserError(
            f"{', '.join(absent)}: no value; leave out the override that removes it, or see conf/config.yaml."
        )
    for group in (*groups, *BUDGETS):
        if not isinstance(raw.get(group), Mapping):
            there = (
                f"see conf/{group} for the options"
                if (conf_dir.CONF_DIR / group).is_dir()
                else f"type {group}.FIELD=VALUE"
            )
            raise UserError(f"{group}={raw.get(group)} is not an option; {there}.")
    values: dict[str, Any] = {name: cls(**raw[name]) for name, cls in SECTIONS.items()}
    values |= {name: look_up(_name(raw, name))(**raw[name]) for name, look_up in CHOICES.items()}
    values |= {name: raw[name] for name in PLAIN}
    values |= {"words": tuple(words), "compose": compose_cached}
    if "scale" in raw["evaluation"]:
        values["adapter_scale"] = raw["evaluation"]["scale"]
    shared, theirs = parted(raw["evaluation"])
    values |= _lm_tasks(theirs)
    evaluation, task, benchmarks = _benchmarks({**raw, "evaluation": shared}, values["pipeline"].also_scored)
    return Config(task=task, benchmarks=benchmarks, evaluation=evaluation, seed=_seed(raw["seed"]), **values)


def _lm_tasks(given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of Config: ``lm_tasks``, None where no task is named, and ``retain``, what Retain counts."""
    tasks, folder, retain = given.get("tasks"), given.get("include_path"), given.get("retain") or ()
    for field, value in (("tasks", tasks), ("retain", retain)):
        if isinstance(value, str):
            raise UserError(f"evaluation.{field}={value} must be a list, e.g. evaluation.{field}=[{value}].")
    if not tasks:
        if folder is not None:
            raise UserError(f"evaluation.include_path={folder} holds tasks; name some with evaluation.tasks=[NAME,…].")
        return {"lm_tasks": None, "retain": retain}
    return {"lm_tasks": LmTasks(tasks=tasks, include_path=folder, retain=retain), "retain": retain}


def _benchmarks(raw: Mapping[str, Any], also: Sequence[str]) -> tuple[Evaluation, Task, tuple[Task, ...]]:
    """The evaluation, the training task, and the benchmarks to score: the four, the trained one, and ``also``.

    ``evaluation.<benchmark>_<field>`` is an option of that benchmark; the group ``task`` may set its own task's too.
    """
    shared = dict(raw["evaluation"])
    scoring = shared.pop("scoring", None)
    shared.pop("scale", None)  # an option of the scored adapter, not of the evaluation
    own: dict[str, dict[str, Any]] = {name: {} for name in TASKS}
    for key in list(shared):
        owner = next((name for name in TASKS if key.startswith(f"{name}_")), None)
        if owner is not None:
            own[owner][key.removeprefix(f"{owner}_")] = shared.pop(key)
    chosen = {key: value for key, value in raw["task"].items() if key != "name"}
    name = _name(raw, "task")
    task = task_class(name)(scoring=scoring, **{**own[name], **chosen})
    names = dict.fromkeys([*ORDER, name, *also])
    for each in names.keys() - {*ORDER, name}:
        own[each] = {**own[each], **_task_options(each)}
    others = {each: task_class(each)(scoring=scoring, **own[each]) for each in names if each != name}
    return Evaluation(**shared), task, tuple(task.as_scored() if n == name else others[n] for n in names)


def _task_options(name: str) -> dict[str, Any]:
    """The options that ``conf/task`` sets for a benchmark other than the chosen task."""
    import yaml

    path = conf_dir.CONF_DIR / "task" / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"There is no {path}, which says how the task {name} is asked; add it (docs/extending.md).")
    return {key: value for key, value in (yaml.safe_load(path.read_text()) or {}).items() if key != "name"}


def _name(raw: Mapping[str, Any], group: str) -> str:
    name = raw[group].get("name")
    if not isinstance(name, str):
        raise UserError(f"{group}.name={name} must be a name; see conf/{group} for the names.")
    return name


def _seed(raw: Mapping[str, Any]) -> int:
    value = raw.get("value")
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**32:
        raise UserError(
            f"seed.value={value} must be a whole number from 0 to {2**32 - 1}; type seed=custom seed.value=7."
        )
    return value


def compose(overrides: Sequence[str]) -> Config:
    """The typed configuration that ``conf/`` and Hydra overrides such as ``["method=lora", "seed=42"]`` compose to.

    Raises:
        UserError: an option or key that does not exist, or a value out of its range.
    """
    return build(raw_composition(overrides), quoted_options(overrides))


def raw_composition(overrides: Sequence[str], *, missing: bool = False) -> dict[str, Any]:
    """The plain, resolved dictionary that Hydra composes from overrides. Raises as :func:`compose`.

    With ``missing``, a required field without a value is ``???``.
    """
    check_conf()
    return _plain(_hydra(quoted_options(overrides)), missing=missing)


def _hydra(words: Sequence[str]) -> DictConfig:
    from hiplora.hydra_compose import composed  # loads Hydra, which takes longer than reading a cached composition

    return composed(words)


def compose_cached(overrides: Sequence[str]) -> Config:
    """As :func:`compose`, but composed once per row of a grid: the seed is set on what the other overrides compose to.

    Hydra takes a tenth of a second per composition, so compositions are cached, keyed by the overrides and the content
    of ``conf/``. A damaged cache file is composed again.

    Raises:
        UserError: as :func:`compose`, or the cache cannot be written.
    """
    check_conf()
    words = quoted_options(overrides)
    if any("${" in word for word in words):  # may refer to something outside conf/, such as an environment variable
        return typed(_hydra(words), words)
    others, seed = _without_seed(words)
    if seed is not None:
        return compose_cached(others).but(seed=seed, words=tuple(words))
    path = _kept_at(words)
    try:
        kept = json_object(path)
        if kept["digest"] == digest(kept["composed"]):
            return build(kept["composed"], words)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    if path in _REFUSED:
        raise UserError(_REFUSED[path])
    try:
        raw = _plain(_hydra(words))
        config = build(raw, words)
    except UserError as error:
        _REFUSED[path] = str(error)
        raise
    write_json(path, {"words": words, "composed": raw, "digest": digest(raw)})
    return config


def is_kept(overrides: Sequence[str]) -> bool:
    """Whether the cache has the composition of these overrides, so that Hydra is not needed."""
    return _kept_at(_without_seed(quoted_options(overrides))[0]).is_file()


def _kept_at(words: Sequence[str]) -> Path:
    return default_cache_dir() / "compositions" / f"{digest([_conf_digest(conf_dir.CONF_DIR), [*words]])}.json"


def _without_seed(words: Sequence[str]) -> tuple[list[str], int | None]:
    """The overrides without those that choose a seed, and the seed; all of them and None if these are not plain."""
    seeds = [word for word in words if word.startswith(("seed=", "seed."))]
    plain = re.fullmatch(r"seed='(\d+)'|seed=custom seed\.value=(\d+)", " ".join(seeds))
    if plain is None:
        return [*words], None
    return [word for word in words if word not in seeds], int(plain[1] or plain[2])


_REFUSED: dict[Path, str] = {}  # errors by cache file, so that a table tries once per row and not per seed


@cache
def _conf_digest(folder: Path) -> str:
    """Digest of what compositions depend on besides the overrides: conf/ and Hydra's version; once per process."""
    files = [[path.relative_to(folder).as_posix(), path.read_text()] for path in sorted(folder.rglob("*.yaml"))]
    return digest([version("hydra-core"), files])
