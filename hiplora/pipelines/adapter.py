"""A trained or fresh adapter on the backbone that all jobs share, for as long as it is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hiplora.disk import json_object
from hiplora.errors import UserError
from hiplora.records import adapter_dir

if TYPE_CHECKING:
    from peft import PeftModel

    from hiplora.config import RunConfig
    from hiplora.methods.base import Method
    from hiplora.models import Backbone

ADAPTER_CONFIG = "adapter_config.json"


@contextmanager
def adapted(method: Method, put_on: Callable[[], PeftModel]) -> Iterator[PeftModel]:
    """The model that ``put_on`` makes of the shared backbone, which is as before when the block ends.

    Where that fails, the backbone is forgotten: half an adapter may be on it, for the next job of a sweep to take.
    """
    from hiplora import models

    try:
        model = put_on()
    except BaseException:
        models.forget()
        raise
    try:
        yield model
    finally:
        method.detach(model)


@contextmanager
def trained(config: RunConfig, backbone: Backbone, train_id: str) -> Iterator[PeftModel]:
    """The stored adapter of a training on the backbone, ready to be evaluated.

    Raises:
        UserError: its folder is not complete.
    """
    folder = adapter_dir(config.outputs_dir, train_id)
    check_complete(folder)
    with adapted(config.method, lambda: config.method.load(backbone.model, folder)) as model:
        yield model


def check_complete(folder: Path) -> None:
    """Refuse a folder that lacks a file or holds a torn one, which each library would tell in its own way."""
    from safetensors import SafetensorError, safe_open

    configuration, weights = folder / ADAPTER_CONFIG, folder / "adapter_model.safetensors"
    lacking = [path.name for path in (configuration, weights) if not path.is_file()]
    try:
        if lacking:
            raise ValueError(f"it has no {' and no '.join(lacking)}")
        json_object(configuration)
        with safe_open(weights, framework="np"):  # reads the header, and whether the file is as long as it says
            pass
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(
            f"The adapter {folder} is not complete ({error}); delete this folder and type the command again, which "
            "trains it anew."
        ) from error
