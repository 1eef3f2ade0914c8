"""A trained or fresh adapter on the backbone that all jobs share, for as long as it is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hiplora.adapters.files import check_complete
from hiplora.records import adapter_dir

if TYPE_CHECKING:
    from peft import PeftModel

    from hiplora.config import RunConfig
    from hiplora.methods.base import Method
    from hiplora.models import Backbone


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
