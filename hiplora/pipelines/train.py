"""Train one adapter: backbone and examples in, adapter folder out."""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiplora.adapters.files import ADAPTER_CONFIG, check_complete
from hiplora.disk import disk_errors, json_object, lock, new_folder, write_atomically
from hiplora.errors import UserError
from hiplora.pipelines.adapter import adapted, trained
from hiplora.pipelines.base import Pipeline, Result
from hiplora.records import adapter_dir, checkpoint_dir, lock_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peft import PeftModel
    from torch import nn

    from hiplora.config import RunConfig

# Raise it when a change of the code changes what is trained: old adapters are then no longer taken for new ones.
VERSION = 1
# Fields of the training section that do not tell one adapter from another.
BOOKKEEPING = ("checkpoint_every", "log_every")


class Train(Pipeline):
    """Leaves ``outputs/adapters/<id>``: the adapter, and the record of its training."""

    def identity(self, config: RunConfig) -> dict[str, Any]:
        from hiplora import models
        from hiplora.tasks import trained_task
        from hiplora.tasks.source import Source

        task = trained_task(config)
        training = {key: value for key, value in asdict(config.training).items() if key not in BOOKKEEPING}
        return {
            "train": VERSION,
            "method": asdict(config.method),
            "task": [task.name, task.form, task.target],
            "seed": config.seed,
            "model": [models.identity(config.model), config.model.dtype, sorted(config.model.target_modules)],
            "svd": asdict(config.svd) if config.method.uses_svd else None,
            "training": training,
            "data": Source(config.data).fingerprint(task.training),
        }

    def directory(self, config: RunConfig, identity: str) -> Path:
        return adapter_dir(config.outputs_dir, identity)

    def run(self, config: RunConfig, needs: list[dict[str, Any]], identity: str) -> Result:
        from transformers import set_seed

        from hiplora import models, tracking
        from hiplora.tasks import trained_task
        from hiplora.tasks.source import Source
        from hiplora.training import train

        backbone = models.load(config.model)
        config.method.check(_target_shapes(backbone.model, config.model.target_modules))
        encoded = trained_task(config).encoded_examples(Source(config.data), backbone.tokenizer)
        set_seed(config.seed)  # the adapter's initialisation; the trainer seeds its own order and dropout
        with adapted(config.method, lambda: config.method.attach(backbone.model, config=config)) as model:
            trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
            result = train(
                model,
                backbone.tokenizer,
                encoded,
                method=config.method,
                training=config.training,
                seed=config.seed,
                checkpoint_dir=checkpoint_dir(config.outputs_dir, identity),
                tracker=tracking.tracker(config, labels=self.labels(config), identity=identity),
            )
            target = self.directory(config, identity)
            with new_folder(target) as folder:
                config.method.save(model, folder)
            sizes = {"trainable_parameters": trainable, **_sizes(model, config, target)}
        summary = {key: value for key, value in asdict(result).items() if key != "curve"}
        return Result(
            {
                "training": {**summary, **sizes, "examples": len(encoded), "curve": result.curve},
                "timings": {"train_s": round(result.seconds, 2)},
                "device": models.describe(backbone),
            }
        )

    def complete(self, config: RunConfig, identity: str) -> None:
        """Add U and V to an adapter that was saved without them and now should carry them; nothing is trained."""
        folder = self.directory(config, identity)
        if config.save_basis and _lacks_basis(folder):
            with lock(lock_path(config.outputs_dir, identity)):
                if _lacks_basis(folder):  # another process may have added them meanwhile
                    print(f"[train] {folder.name}: adding U and V to the adapter", file=sys.stderr, flush=True)
                    _add_basis(config, folder)

    def clean(self, config: RunConfig, identity: str) -> None:
        shutil.rmtree(checkpoint_dir(config.outputs_dir, identity), ignore_errors=True)


def _target_shapes(model: nn.Module, targets: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Shapes (out, in) of the linear layers that an adapter will be attached to.

    Raises:
        UserError: a target that is no linear layer's; PEFT would leave it out in silence.
    """
    from torch import nn

    shapes = {
        name: (module.out_features, module.in_features)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    }
    known = {_last(name) for name in shapes}
    absent = [target for target in targets if target not in known]
    if absent:
        raise UserError(
            f"model.target_modules names {', '.join(absent)}, but no linear layer of this backbone is called so; "
            f"choose among {', '.join(sorted(known))}."
        )
    return {name: shape for name, shape in shapes.items() if _last(name) in targets}


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _lacks_basis(folder: Path) -> bool:
    """Whether an adapter is there that could carry its singular directions and does not; others have no such option."""
    if not folder.is_dir():
        return False
    check_complete(folder)
    return json_object(folder / ADAPTER_CONFIG).get("save_basis") is False


def _add_basis(config: RunConfig, folder: Path) -> None:
    """Save the adapter again, with its directions; each file is replaced whole, and the folder loads at any moment."""
    from hiplora import models
    from hiplora.methods.base import active_adapter

    with trained(config, models.load(config.model), folder.name) as model:
        options: Any = model.peft_config[active_adapter(model)]
        options.save_basis = True
        with disk_errors(folder), tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as again:
            config.method.save(model, Path(again))
            # The configuration last: it says that the weights beside it carry the directions.
            for path in sorted(Path(again).iterdir(), key=lambda path: path.name == ADAPTER_CONFIG):
                write_atomically(folder / path.name, path.read_bytes())


def _sizes(model: PeftModel, config: RunConfig, target: Path) -> dict[str, int]:
    return {
        "deployed_parameters": config.method.deployed_parameters(model),
        "adapter_bytes": sum(path.stat().st_size for path in target.glob("*.safetensors")),
    }
