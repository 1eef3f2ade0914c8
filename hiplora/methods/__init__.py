"""The registry of methods: name → class. A new method is one file, one conf file and one line here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from hiplora.errors import UserError

if TYPE_CHECKING:
    from hiplora.methods.base import Method

METHODS: dict[str, str] = {
    "hip": "hiplora.methods.hip:Hip",
    "lora": "hiplora.methods.lora:Lora",
    "proj": "hiplora.methods.proj:Proj",
    "pissa": "hiplora.methods.pissa:Pissa",
    "split": "hiplora.methods.split:Split",
    "adalora": "hiplora.methods.adalora:Adalora",
    "dora": "hiplora.methods.dora:Dora",
    "olora": "hiplora.methods.olora:Olora",
    "osf": "hiplora.methods.osf:Osf",
}


def method_class(name: str) -> type[Method]:
    """The class of a method. Raises UserError for an unknown name."""
    if name not in METHODS:
        raise UserError(f"method={name} is not known; choose one of {', '.join(METHODS)}")
    module, attribute = METHODS[name].split(":")
    return getattr(import_module(module), attribute)
