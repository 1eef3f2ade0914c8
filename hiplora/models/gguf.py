"""GGUF files: converted once into a folder of safetensors and tokenizer, which loads in a moment.

torch and transformers are not imported until a file is converted.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from hiplora.disk import default_cache_dir, intact, lock, new_folder, seal
from hiplora.errors import UserError

_CONVERSION = 1  # raise this when the conversion writes something else


def conversion(file: Path, what: str, dtype: str) -> Path:
    """The folder of a GGUF's conversion: ``what`` is the file's digest. Absolute, since adapters store this path."""
    return default_cache_dir().resolve() / "backbones" / f"{file.stem}-{what[:12]}-{dtype}-{_CONVERSION}"


def converted(file: Path, what: str, dtype: str) -> Path:
    """The folder of safetensors and tokenizer made from a GGUF, converted unless an intact one exists.

    Raises:
        UserError: the file cannot be read as a GGUF model.
    """
    folder = conversion(file, what, dtype)
    if not intact(folder):
        with lock(folder):
            if not intact(folder):
                if folder.is_dir():
                    print(f"{folder} is not what was written into it; it is made anew.", file=sys.stderr, flush=True)
                convert(file, folder, dtype)
    return folder


def convert(file: Path, folder: Path, dtype: str) -> None:
    """Dequantise a GGUF to fp32, cast to ``dtype`` and save into ``folder``. Raises UserError if it cannot be read."""
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
    # transformers refuses to save a model that it still considers quantised.
    model.is_quantized, model.hf_quantizer = False, None
    model.config.__dict__.pop("quantization_config", None)
    with new_folder(folder) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        seal(temporary)


@contextmanager
def _parsed_once() -> Iterator[None]:
    """Within the context transformers gets the same parsed GGUF and name map each time.

    It would parse the file again for the tokenizer, the configuration and the weights, and build the name map again for
    every module, which together takes more than half of the time of a conversion.
    """
    import gguf

    quick = {"GGUFReader": _header, "get_tensor_name_map": cache(gguf.get_tensor_name_map)}
    theirs = {name: getattr(gguf, name) for name in quick}
    try:
        for name, call in quick.items():
            setattr(gguf, name, call)
        yield
    finally:
        for name, call in theirs.items():
            setattr(gguf, name, call)


@cache
def _header(path: str) -> Any:
    """A parsed GGUF. It slices a plain view of the file: slicing a memmap a hundred thousand times is slow."""
    import numpy as np
    from gguf.gguf_reader import GGUFReader

    class Reader(GGUFReader):
        data = property(lambda self: self.view, lambda self, file: setattr(self, "view", np.asarray(file)))

    return Reader(path)


def positions(path: Path) -> int | None:
    """The context length (positions) in a GGUF's header, which its conversion keeps; None without one."""
    return _field(path, ".context_length")


def matrices(path: Path, like: Collection[str]) -> dict[str, tuple[int, ...]]:
    """The shapes (out, in) in a GGUF's header of modules like the given ones, at every layer, by transformers' names.

    Args:
        like: names of modules; a layer's number in them stands for every layer.
    """
    import gguf

    count, kind = _field(path, ".block_count") or 0, _header(str(path)).fields["general.architecture"].contents()
    architecture = next((each for each, name in gguf.MODEL_ARCH_NAMES.items() if name == kind), None)
    if architecture is None:
        return {}
    theirs = gguf.get_tensor_name_map(architecture, count)
    stored = {each.name: tuple(int(size) for size in reversed(each.shape)) for each in _header(str(path)).tensors}
    names = {re.sub(r"\.\d+\.", f".{layer}.", name, count=1) for name in like for layer in range(count)}
    return {name: stored[key] for name in sorted(names) if (key := f"{theirs.get_name(name)}.weight") in stored}


def _field(path: Path, end: str) -> int | None:
    found = [field.contents() for name, field in _header(str(path)).fields.items() if name.endswith(end)]
    return int(found[0]) if found else None
