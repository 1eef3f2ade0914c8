"""What nearly every command imports, for the process from which the commands of these tests are forked."""

# ruff: noqa: F401
from __future__ import annotations

import gc
import os

os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # as hiplora.run does, before the Hub's client reads it
os.environ["HF_HUB_OFFLINE"] = "1"

import datasets
import hydra
import lm_eval.evaluator
import lm_eval.models.huggingface
import peft
import torch
import transformers.models.llama.modeling_llama
import transformers.trainer

gc.collect()
gc.freeze()  # as in conftest.py; it also leaves the pages shared with the processes that are forked
