"""A benchmark's requests as an lm-eval task whose documents are already in memory."""

from __future__ import annotations

import random
from typing import Any

from datasets import Dataset
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml

from hiplora.tasks.base import Requests


class DocumentsTask(ConfigurableTask):
    """lm-eval's task of a YAML file, with documents that are passed in instead of downloaded."""

    def __init__(self, config: dict[str, Any], documents: list[dict[str, Any]]) -> None:
        self.documents = documents
        super().__init__(config=config)
        self.fewshot_rnd = random.Random(0)  # lm-eval requires it; nothing is drawn at zero shots

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        self.dataset = {"test": Dataset.from_list(self.documents)}

    def build_all_requests(self, *, limit: int | None = None, rank: int = 0, world_size: int = 1, **_: Any) -> None:
        """Requests of every document: its text is the whole prompt."""
        self._instances: list[Instance] = []
        for number, document in self.doc_iterator(rank=rank, limit=limit, world_size=world_size):
            metadata = (self.config.task, number, self.config.repeats)
            made = self.construct_requests(doc=document, ctx=self.doc_to_text(document), metadata=metadata)
            self._instances.extend([made] if isinstance(made, Instance) else made)


def lm_eval_task(requests: Requests) -> DocumentsTask:
    """The lm-eval task of one benchmark's requests."""
    config = load_yaml(requests.yaml) | requests.overrides | {"task": requests.name}
    return DocumentsTask(config, requests.documents)
