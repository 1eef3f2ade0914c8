"""GGUF files: converted once into a folder of safetensors and tokenizer, which is loaded in a moment.

Nothing heavy is imported until a file is converted.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from hiplora.disk import default_cache_dir, intact, lock, new_folder, seal
from hiplora.errors import UserError

_CONVERSION = 1  # raise it when the conversion of a GGUF changes what is written


def conversion(file: Path, what: str, dtype: str) -> Path:
    """Where the conversion of a GGUF lies. Absolute, since an adapter remembers where its backbone was loaded from."""
    return default_cache_dir().resolve() / "backbones" / f"{file.stem}-{what[:12]}-{dtype}-{_CONVERSION}"


def converted(file: Path, what: str, dtype: str) -> Path:
    """The folder of safetensors and tokenizer made from a GGUF: converted once, then loaded in a moment."""
    folder = conversion(file, what, dtype)
    if not intact(folder):
        with lock(folder):
            if not intact(folder):
                if folder.is_dir():
                    print(f"{folder} is not what was written into it; it is made anew.", file=sys.stderr, flush=True)
                convert(file, folder, dtype)
    return folder


def convert(file: Path, folder: Path, dtype: str) -> None:
    """Dequantise to fp32, cast, and save."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    print(f"Converting {file.name} once, into {folder}.", file=sys.stderr, flush=True)
    source = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    try:
        with _parsed_once():
            tokenizer = AutoTokenizer.from_pretrained(**source)
            model = AutoModelForCausalLM.from_pretrained(
                **source, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
            ).to(getattr(torch, dtype))
    except Exception as error:  # as where a backbone is loaded
        raise UserError(f"{file} cannot be read as a GGUF model ({error}); reinstall its package.") from error
    # transformers refuses to save what it still takes for a quantised model.
    model.is_quantized, model.hf_quantizer = False, None
    model.config.__dict__.pop("quantization_config", None)
    with new_folder(folder) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        seal(temporary)


@contextmanager
def _parsed_once() -> Iterator[None]:
    """Within the context transformers gets the same parsed GGUF and name map each time it asks.

    It parses the file for the tokenizer, the configuration and the weights, and builds the name map anew for every
    module, which together is more than half of the time of a conversion.
    """
    import gguf
    import numpy as np

    class Reader(gguf.GGUFReader):
        """Cuts its hundred thousand small pieces out of a plain view of the file: a memmap is slow to cut."""

        data = property(lambda self: self.view, lambda self, file: setattr(self, "view", np.asarray(file)))

    quick = {"GGUFReader": cache(Reader), "get_tensor_name_map": cache(gguf.get_tensor_name_map)}
    theirs = {name: getattr(gguf, name) for name in quick}
    try:
        for name, call in quick.items():
            setattr(gguf, name, call)
        yield
    finally:
        for name, call in theirs.items():
            setattr(gguf, name, call)


@cache
def positions(path: Path) -> int | None:
    """The context length in a GGUF's header, which its conversion keeps."""
    import gguf

    fields = gguf.GGUFReader(path).fields
    found = [field.contents() for name, field in fields.items() if name.endswith(".context_length")]
    return int(found[0]) if found else None
