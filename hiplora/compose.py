"""From overrides as a user types them to a typed configuration, without starting a run."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiplora.config import Options, digest
from hiplora.disk import FOLDERS, check_folder, default_cache_dir, json_object, typed_path, write_json
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
    from hydra.errors import HydraException
    from omegaconf import DictConfig

CONF_DIR = Path(__file__).resolve().parent.parent / "conf"  # beside the package, in a checkout: users edit it


def check_conf() -> None:
    """Refuse to go on where the package was installed without its checkout, and so without conf/.

    Raises:
        UserError: conf/ is not there.
    """
    if not CONF_DIR.is_dir():
        raise UserError(
            f"The settings of runs and tables are missing ({CONF_DIR}): an installed copy holds the library alone, so "
            "type `pip install -c constraints.txt -e '.[suite]'` in a checkout of the project and run it from there."
        )


def quoted_options(overrides: Sequence[str]) -> list[str]:
    """Overrides as Hydra should read them: numbers among options of groups in quotes, ~ as the home folder.

    Hydra takes a bare ``seed=42`` for a value.

    Raises:
        UserError: a seed that is not an option of the group; the sentence says how any other seed is chosen.
    """
    groups = {path.name for path in CONF_DIR.iterdir() if path.is_dir()}
    overrides = _in_pipeline(overrides)
    for text in overrides:
        _check_choice(text, groups)
    at_home = [_with_home(text) if text.partition("=")[0] in PATHS else text for text in overrides]
    return [_quoted(text) if text.partition("=")[0] in groups else text for text in at_home]


PATHS = (
    *FOLDERS,
    "model.path",
    "evaluation.include_path",
    "data.root",
    "pipeline.adapter",
    "task.file",
    "task.validation_file",
    "task.test_file",
)
SHORT = {
    "adapter": "pipeline.adapter",
    "adapter.revision": "pipeline.revision",
}  # typed for fields of pipeline=evaluate


def _in_pipeline(overrides: Sequence[str]) -> list[str]:
    """Overrides with what is typed in short by its whole name. UserError where no pipeline has such a field."""
    given = [text.partition("=")[0] for text in overrides]
    short = next((field for field in given if field in SHORT), None)
    if short is not None and not any(text.startswith("pipeline=") and "evaluate" in text for text in overrides):
        raise UserError(f"{short}=… is read by pipeline=evaluate alone; type that beside it, or leave it out.")
    return [SHORT.get(field, field) + text.removeprefix(field) for field, text in zip(given, overrides, strict=True)]


def _check_choice(override: str, groups: set[str]) -> None:
    """Refuse what chooses no option of a group, for which Hydra has an error that no user should read."""
    group, sign, given = override.lstrip("+").partition("=")
    if not sign or not (group in groups or group == "hydra" or "/" in group):
        return
    for value in given.split(","):
        if value.strip() in ("", "null") or value.strip()[0] in "[{":
            known = sorted(path.stem for path in (CONF_DIR / group).glob("*.yaml"))
            choose = f"choose one of {', '.join(known)}" if known else "name one"
            raise UserError(f"{group}={given} chooses no option; leave it out, or {choose}.")


def _with_home(override: str) -> str:
    """A folder with its ~ replaced: Hydra makes a folder of its own in outputs_dir, and a shell replaces none there."""
    field, _, value = override.partition("=")

    def at_home(found: re.Match[str]) -> str:
        check_folder(field, found[0])
        return str(typed_path(found[0]))

    return f"{field}=" + re.sub(r"(?<![^\[,'\"])~[^,\]'\"]*", at_home, value)  # each value of a list too


def _quoted(override: str) -> str:
    group, _, given = override.partition("=")
    values = [value.strip(" '\"") for value in given.split(",")]
    options = {path.stem for path in (CONF_DIR / "seed").glob("*.yaml")}
    for value in values:
        if group == "seed" and value not in options and value.lstrip("-").isdigit():
            raise UserError(
                f"seed={value} is not one of the paper's seeds 42, 100, 2024; type seed=custom seed.value={value}."
            )
    number = re.compile(r"-?[\d.]+")
    return f"{group}=" + ",".join(f"'{value}'" if number.fullmatch(value) else value for value in values)


def typed(config: DictConfig, words: Sequence[str]) -> Config:
    """Typed configuration from what Hydra composed from overrides.

    Raises:
        UserError: one sentence on the first thing that is wrong.
    """
    return build(_plain(config), words)


def _plain(config: DictConfig, *, missing: bool = False) -> dict[str, Any]:
    """Plain, resolved dictionary of what Hydra composed; with ``missing``, a field without a value is ``???``."""
    from omegaconf import OmegaConf
    from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

    try:
        raw: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=not missing)
    except InterpolationResolutionError as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(f"{error.full_key}: {reason}; name a key of this configuration in ${{…}}.") from None
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "a field"
        raise UserError(f"{key} has no value; add {key}=… to the command.") from None
    return raw


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
BUDGETS = ("merging", "efficiency")  # sections of conf/scale that options of a pipeline are taken from


def build(raw: Mapping[str, Any], words: Sequence[str] = ()) -> Config:
    """Typed configuration from the plain, resolved dictionary that Hydra composed from overrides.

    Raises:
        UserError: an unknown or missing key, a value of the wrong type or out of its range.
    """
    groups = (*SECTIONS, *CHOICES, "task", "evaluation", "seed")
    if unknown := sorted(set(raw) - {*groups, *PLAIN, *BUDGETS}):
        raise UserError(f"{', '.join(unknown)}: no such key; see conf/config.yaml for the ones there are.")
    if absent := [key for key in (*groups, *PLAIN) if raw.get(key) is None]:
        raise UserError(f"{', '.join(absent)}: no value; leave out what removes it, or see conf/config.yaml.")
    for group in groups:
        if not isinstance(raw[group], Mapping):
            raise UserError(f"{group}={raw[group]} is not an option; see conf/{group} for those there are.")
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
    """lm-eval's tasks, None where none is named, and what Retain counts."""
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
    """Evaluation, the task that is trained, and the benchmarks that are scored: the four, the trained one, ``also``.

    ``evaluation.<benchmark>_<field>`` is an option of that benchmark; the group ``task`` may set its own task's too.
    """
    shared = dict(raw["evaluation"])
    scoring = shared.pop("scoring", None)
    shared.pop("scale", None)  # of the adapter that is scored, not of how the benchmarks are asked
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
    return Evaluation(**shared), task, tuple(task.but(template=None) if n == name else others[n] for n in names)


def _task_options(name: str) -> dict[str, Any]:
    """What ``conf/task`` sets of a benchmark that is not the one chosen."""
    import yaml

    path = CONF_DIR / "task" / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"There is no {path}, which says how the task {name} is asked; add it (docs/extending.md).")
    return {key: value for key, value in (yaml.safe_load(path.read_text()) or {}).items() if key != "name"}


def _name(raw: Mapping[str, Any], group: str) -> str:
    name = raw[group].get("name")
    if not isinstance(name, str):
        raise UserError(f"{group}.name={name} must be a name; see conf/{group} for those there are.")
    return name


def _seed(raw: Mapping[str, Any]) -> int:
    value = raw.get("value")
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**32:
        raise UserError(
            f"seed.value={value} must be a whole number from 0 to {2**32 - 1}; type seed=custom seed.value=7."
        )
    return value


def compose(overrides: Sequence[str]) -> Config:
    """Compose ``conf/`` with Hydra overrides such as ``["method=lora", "seed=42"]``.

    Raises:
        UserError: an option or key that does not exist, or a value out of its range.
    """
    return build(raw_composition(overrides), quoted_options(overrides))


def raw_composition(overrides: Sequence[str], *, missing: bool = False) -> dict[str, Any]:
    """The plain, resolved dictionary that Hydra composes from overrides. Raises as :func:`compose`.

    With ``missing``, a field that must be given and is not is ``???``.
    """
    check_conf()
    return _plain(_hydra(quoted_options(overrides)), missing=missing)


def files(overrides: Sequence[str]) -> list[tuple[str, str]]:
    """The files of conf/ that overrides compose, without their ending, each with the section that it fills.

    The later ones count over the earlier. Raises as :func:`compose`.
    """
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from hydra.types import RunMode

    check_conf()
    try:
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            loader = GlobalHydra.instance().config_loader()
            listed = loader.compute_defaults_list("config", quoted_options(overrides), RunMode.RUN).defaults
    except HydraException as error:
        raise one_sentence(error) from None
    return [
        (str(each.config_path), each.package or "") for each in listed if not str(each.config_path).startswith("hydra/")
    ]


def compose_cached(overrides: Sequence[str]) -> Config:
    """As :func:`compose`, but each row of a grid once: seeds are set on what is composed without them.

    Hydra takes a tenth of a second for each composition, so they are kept in the cache, by the words and the content
    of ``conf/``. A file that is damaged is composed anew.

    Raises:
        UserError: as :func:`compose`, or the cache cannot be written.
    """
    check_conf()
    words = quoted_options(overrides)
    if any("${" in word for word in words):  # may stand for something outside conf/, such as a variable
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
    """Whether the row of these overrides was composed before, so that Hydra need not be asked."""
    return _kept_at(_without_seed(quoted_options(overrides))[0]).is_file()


def _kept_at(words: Sequence[str]) -> Path:
    return default_cache_dir() / "compositions" / f"{digest([_conf_digest(CONF_DIR), [*words]])}.json"


def _without_seed(words: Sequence[str]) -> tuple[list[str], int | None]:
    """The words without those that choose a seed, and it; all of them and None where they say more of it."""
    seeds = [word for word in words if word.startswith(("seed=", "seed."))]
    plain = re.fullmatch(r"seed='(\d+)'|seed=custom seed\.value=(\d+)", " ".join(seeds))
    if plain is None:
        return [*words], None
    return [word for word in words if word not in seeds], int(plain[1] or plain[2])


_REFUSED: dict[Path, str] = {}  # what does not compose, so that a table asks once per row and not per seed


@cache
def _conf_digest(folder: Path) -> str:
    """What compositions depend on beside the words; read once per process."""
    files = [[path.relative_to(folder).as_posix(), path.read_text()] for path in sorted(folder.rglob("*.yaml"))]
    return digest([version("hydra-core"), files])


def check_hydra(options: Sequence[str]) -> None:
    """Refuse options of Hydra itself that it does not know, before many runs are started with them.

    Raises:
        UserError: an option, such as a launcher, that does not exist or is not installed.
    """
    try:
        _hydra(options, return_hydra_config=True)
    except UserError as error:
        extras = "pip install -e '.[joblib]', '.[slurm]' or '.[ray]' adds a launcher"
        raise UserError(f"{error}{f' ({extras})' if 'hydra/launcher' in str(error) else ''}") from None


def impossible(overrides: Sequence[str]) -> tuple[str, UserError] | None:
    """The first combination of a sweep that Hydra cannot compose: its swept values, and why; None if all compose."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        parsed = OverridesParser.create(GlobalHydra.instance().config_loader()).parse_overrides(list(overrides))
        axes = {
            each.get_key_element(): list(each.sweep_string_iterator()) for each in parsed if each.is_discrete_sweep()
        }
        fixed = [str(each.input_line) for each in parsed if not each.is_sweep_override()]
        for values in itertools.product(*axes.values()):
            chosen = [f"{key}={value}" for key, value in zip(axes, values, strict=True)]
            try:
                hydra_compose("config", overrides=[*fixed, *chosen])
            except HydraException as error:
                return " ".join(chosen), one_sentence(error)
    return None


def one_sentence(error: HydraException) -> UserError:
    """What Hydra refuses to compose, in one sentence."""
    sentence = " ".join(str(error).split("Config search path")[0].split())  # the path says nothing to a user
    where, _, rest = sentence.partition(": ")
    named = rest if where.startswith("In '") else sentence
    absent = re.match(r"Could not override '(.*)'\. To append to your config use", named)
    if absent:  # appended, it would be refused too
        named = f"{absent[1]} is not a field of this configuration; conf/ explains those there are."
    return UserError(named.replace("' Available", "'. Available"))


def _hydra(overrides: Sequence[str], *, return_hydra_config: bool = False) -> DictConfig:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    # A run that Hydra started and that composes another configuration has Hydra ready, for the same conf/.
    ready = GlobalHydra.instance().is_initialized()
    try:
        with nullcontext() if ready else initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            return hydra_compose("config", overrides=list(overrides), return_hydra_config=return_hydra_config)
    except HydraException as error:
        raise one_sentence(error) from None
