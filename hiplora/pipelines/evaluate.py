"""Pipeline ``evaluate``: what adapters trained elsewhere have learned and forgotten, each alone and all merged."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from hiplora import models
from hiplora.adapters.files import HUB
from hiplora.config import Positive
from hiplora.disk import typed_path
from hiplora.errors import UserError
from hiplora.models import Model
from hiplora.pipelines.base import Config, Pipeline, Stages, scores
from hiplora.stages.drift import Drift
from hiplora.stages.folders import Folder, MergedFolders, named_backbone
from hiplora.stages.make import Wanted
from hiplora.stages.sources import Backbone
from hiplora.tasks import ORDER

CHOSEN = re.compile(r"[+~]*model(=|\.(path|source|revision)=)")  # words that say which backbone it is


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) or value is None else value


class Evaluate(Pipeline):
    """``adapter`` names one or more adapter folders or Hub repositories; ``revision`` is for a single repository.

    ``trained_on`` are the benchmarks that the adapters were trained on, which Retain leaves out: one for all adapters,
    or one for each; null stands for none of the four. ``merged`` also scores several adapters merged by ``merge=``.
    ``drift`` measures each update's energy shares and how it moves the ``k`` leading directions of its matrices.
    """

    unscaled: ClassVar[bool] = True
    with_lm_tasks: ClassVar[bool] = True
    with_retain: ClassVar[bool] = True

    adapter: Annotated[tuple[str, ...], BeforeValidator(_listed), Field(strict=False, min_length=1)]
    revision: str | None
    trained_on: Annotated[tuple[str | None, ...], BeforeValidator(_listed), Field(strict=False)]
    merged: bool
    drift: bool
    k: Positive

    @classmethod
    def typed_as(cls, field: str) -> str:
        return {"adapter": "adapter", "revision": "adapter.revision"}.get(field, f"pipeline.{field}")

    def check_options(self) -> None:
        if not all(path.strip() for path in self.adapter):
            raise UserError("adapter= is empty; type adapter=DIR, or adapter=owner/name for one on the Hub.")
        twice = [path for path in self.adapter if self.adapter.count(path) > 1]
        if twice:
            raise UserError(f"adapter=[{','.join(self.adapter)}] names {twice[0]} twice; name each adapter once.")
        if self.revision is not None and (len(self.adapter) > 1 or not _on_hub(self.adapter[0])):
            raise UserError(
                f"adapter.revision={self.revision} is for a single repository on the Hub that is named without a "
                "revision; leave it out for a folder, and for several type adapter=[owner/name@REVISION,…]."
            )
        if unknown := [name for name in self.trained_on if name is not None and name not in ORDER]:
            raise UserError(f"pipeline.trained_on names {unknown[0]}; choose among {', '.join(ORDER)}, or null.")
        if len(self.trained_on) not in (1, len(self.adapter)):
            raise UserError(
                f"pipeline.trained_on has {len(self.trained_on)} names for {len(self.adapter)} adapters; give one for "
                "all, or one for each."
            )

    def stages(self, config: Config) -> Stages:
        """The scores of the backbone, of each adapter and of the merged model, and each adapter's drift."""
        config = config.but(model=self.backbone(config))
        each = zip(self.paths(), self.left_out(), strict=True)
        folders = tuple(Folder(model=config.model, path=path, trained_on=task) for path, task in each)
        asked = [Wanted(scores(config, Backbone(model=config.model)), shared=True)]
        asked += [Wanted(scores(config, folder)) for folder in folders]
        if len(folders) > 1 and self.merged:
            seed = config.seed if config.merge.random else None
            asked.append(Wanted(scores(config, MergedFolders(adapters=folders, operator=config.merge, seed=seed))))
        if self.drift:
            asked += [Wanted(Drift(of=folder, svd=config.svd, k=self.k, fractions=())) for folder in folders]
        return asked

    def paths(self) -> list[str]:
        """The adapters, with ``revision`` in the name of the repository if one is given."""
        if self.revision is None:
            return [*self.adapter]
        owner, name, *inside = self.adapter[0].split("/")
        return ["/".join([owner, f"{name}@{self.revision}", *inside])]

    def backbone(self, config: Config) -> Model:
        """The backbone chosen with ``model=``, else the one that the adapters name.

        Raises:
            UserError: the adapters name no backbone, or different ones.
        """
        if any(CHOSEN.match(word) for word in config.words):
            return config.model
        named = {path: named_backbone(path) for path in self.paths()}
        first, *others = named
        for other in others:
            if named[other] != named[first]:
                raise UserError(
                    f"{first} was trained on {_spelt(named[first])} and {other} on {_spelt(named[other])}; give "
                    "adapters of one backbone, or name it with model= if these are two names of it."
                )
        return models.based_on(config.model, *named[first])

    def left_out(self) -> list[str | None]:
        """For every adapter, the benchmark that its Retain leaves out, or None."""
        return [*self.trained_on] * (len(self.adapter) if len(self.trained_on) == 1 else 1)


def _on_hub(path: str) -> bool:
    """Whether a path names a repository without a revision, or a folder inside one."""
    hub = HUB.fullmatch(path)
    return hub is not None and hub["revision"] is None and not typed_path(path).is_dir()


def _spelt(named: tuple[str, str | None]) -> str:
    return "@".join(filter(None, named))
