"""What Hydra composes from conf/, with its refusals in one sentence. Loads Hydra, which cached compositions avoid.

Hydra parses every file again for each composition, which takes half of its time; here each is parsed once per process.
"""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import hydra
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig

from hiplora import conf_dir
from hiplora.command_line import quoted_options
from hiplora.errors import UserError

# Parts of Hydra's own section that only a run started by Hydra uses: a quarter of a composition's time.
UNUSED = ("hydra/job_logging=none", "hydra/hydra_logging=none", "~hydra/help", "~hydra/hydra_help")


def composed(overrides: Sequence[str], *, with_hydra: bool = False) -> DictConfig:
    """The composition of quoted overrides; ``with_hydra``: with Hydra's own section. Raises UserError."""
    try:
        with _ready():
            words = [*overrides, *(() if with_hydra else UNUSED)]
            return hydra.compose("config", overrides=words, return_hydra_config=with_hydra)
    except HydraException as error:
        raise one_sentence(error) from None


def files(overrides: Sequence[str]) -> list[tuple[str, str]]:
    """The files of conf/ that overrides compose, without their suffix, each with the section that it fills.

    Later files override earlier ones. Raises as :func:`composed`.
    """
    try:
        with _ready():
            loader = GlobalHydra.instance().config_loader()
            listed = loader.compute_defaults_list("config", quoted_options(overrides), RunMode.RUN).defaults
    except HydraException as error:
        raise one_sentence(error) from None
    return [
        (str(each.config_path), each.package or "") for each in listed if not str(each.config_path).startswith("hydra/")
    ]


@contextmanager
def _ready() -> Iterator[None]:
    """Within the context Hydra is initialised for conf/."""
    # In a run that Hydra started, it is initialised already, for the same conf/.
    if GlobalHydra.instance().is_initialized():
        yield
        return
    with initialize_config_dir(str(conf_dir.CONF_DIR), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        assert isinstance(loader, ConfigLoaderImpl)
        loader.repository = _Files(loader.config_search_path, _state())
        yield


class _Files(ConfigRepository):
    """The files that Hydra composes; none is parsed again as long as nothing in conf/ changes."""

    def __init__(self, search_path: ConfigSearchPath, state: tuple[object, ...]) -> None:
        super().__init__(search_path)
        self._state = state

    def load_config(self, config_path: str) -> ConfigResult | None:
        """See :class:`hydra._internal.config_repository.IConfigRepository`."""
        known = _known(tuple(str(source.path) for source in self.sources), self._state)
        if config_path not in known:
            known[config_path] = super().load_config(config_path)
        return copy.deepcopy(known[config_path])  # Hydra modifies what it is given


@lru_cache(maxsize=1)
def _known(sources: tuple[str, ...], state: tuple[object, ...]) -> dict[str, ConfigResult | None]:
    return {}


def _state() -> tuple[object, ...]:
    """Path, inode, size and time of every file in conf/: differs after any change."""
    stats = ((path, path.stat()) for path in sorted(conf_dir.CONF_DIR.rglob("*.yaml")))
    return tuple((path, stat.st_ino, stat.st_size, stat.st_mtime_ns) for path, stat in stats)


def check_hydra(options: Sequence[str]) -> None:
    """Refuse unknown options of Hydra itself before many runs are started with them.

    Raises:
        UserError: an option, such as a launcher, that does not exist or is not installed.
    """
    try:
        composed(options, with_hydra=True)
    except UserError as error:
        extras = "pip install -e '.[joblib]', '.[slurm]' or '.[ray]' adds a launcher"
        raise UserError(f"{error}{f' ({extras})' if 'hydra/launcher' in str(error) else ''}") from None


def impossible(overrides: Sequence[str]) -> tuple[str, UserError] | None:
    """The first combination of a sweep that Hydra cannot compose, as its swept values and the error; None if all do."""
    with initialize_config_dir(str(conf_dir.CONF_DIR), version_base="1.3"):
        parsed = OverridesParser.create(GlobalHydra.instance().config_loader()).parse_overrides(list(overrides))
        axes = {
            each.get_key_element(): list(each.sweep_string_iterator()) for each in parsed if each.is_discrete_sweep()
        }
        fixed = [str(each.input_line) for each in parsed if not each.is_sweep_override()]
        for values in itertools.product(*axes.values()):
            chosen = [f"{key}={value}" for key, value in zip(axes, values, strict=True)]
            try:
                hydra.compose("config", overrides=[*fixed, *chosen])
            except HydraException as error:
                return " ".join(chosen), one_sentence(error)
    return None


def one_sentence(error: HydraException) -> UserError:
    """Hydra's refusal to compose, in one sentence."""
    sentence = " ".join(str(error).split("Config search path")[0].split())  # the search path does not help a user
    where, _, rest = sentence.partition(": ")
    named = rest if where.startswith("In '") else sentence
    absent = re.match(r"Could not override '(.*)'\. To append to your config use", named)
    if absent:  # Hydra suggests +field=…, which we would refuse too
        named = f"{absent[1]} is not a field of this configuration; conf/ explains the existing ones."
    return UserError(named.replace("' Available", "'. Available"))
