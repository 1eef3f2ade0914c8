"""Train one adapter: backbone and examples in, adapter folder out."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiplora.pipelines.base import Pipeline, Result
from hiplora.records import adapter_dir, checkpoint_dir, disk_errors, lock, lock_path, write_atomically

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import nn

    from hiplora.config import RunConfig

# Raise it when a change of the code changes what is trained: old adapters are then no longer taken for new ones.
VERSION = 1
# Fields of the training section that do not change the adapter.
BOOKKEEPING = ("checkpoint_every", "log_every")
ADAPTER_CONFIG = "adapter_config.json"


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
        try:
            adapted = config.method.attach(backbone.model, config=config)
        except BaseException:
            models.forget()  # half an adapter may be in it, and the next job of a sweep would take it
            raise
        trainable = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
        try:
            result = train(
                adapted,
                backbone.tokenizer,
                encoded,
                method=config.method,
                training=config.training,
                seed=config.seed,
                checkpoint_dir=checkpoint_dir(config.outputs_dir, identity),
                tracker=tracking.tracker(config, labels=self.labels(config), identity=identity),
            )
            target = self.directory(config, identity)
            _save(adapted, config, target)
            sizes = {"trainable_parameters": trainable, **_sizes(adapted, config, target)}
        finally:
            config.method.detach(adapted)
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


def _target_shapes(model: nn.Module, targets: list[str]) -> dict[str, tuple[int, int]]:
    """Shapes (out, in) of the linear layers that an adapter will be attached to."""
    from torch import nn

    return {
        name: (module.out_features, module.in_features)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in targets
    }


def _save(adapted: PeftModel, config: RunConfig, target: Path) -> None:
    """Save the adapter so that its folder is complete if it exists."""
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        try:
            config.method.save(adapted, temporary)
            shutil.rmtree(target, ignore_errors=True)
            temporary.chmod(0o755)
            temporary.rename(target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def _lacks_basis(folder: Path) -> bool:
    """Whether an adapter is there that could carry its singular directions and does not; others have no such option."""
    path = folder / ADAPTER_CONFIG
    return path.is_file() and json.loads(path.read_text()).get("save_basis") is False


def _add_basis(config: RunConfig, folder: Path) -> None:
    """Save the adapter again, with its directions; each file is replaced whole, and the folder loads at any moment."""
    from hiplora import models
    from hiplora.methods.base import active_adapter

    adapted = config.method.load(models.load(config.model).model, folder)
    try:
        options: Any = adapted.peft_config[active_adapter(adapted)]
        options.save_basis = True
        with disk_errors(folder), tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as again:
            config.method.save(adapted, Path(again))
            # The configuration last: it says that the weights beside it carry the directions.
            for path in sorted(Path(again).iterdir(), key=lambda path: path.name == ADAPTER_CONFIG):
                write_atomically(folder / path.name, path.read_bytes())
    finally:
        config.method.detach(adapted)


def _sizes(adapted: PeftModel, config: RunConfig, target: Path) -> dict[str, int]:
    return {
        "deployed_parameters": config.method.deployed_parameters(adapted),
        "adapter_bytes": sum(path.stat().st_size for path in target.glob("*.safetensors")),
    }
