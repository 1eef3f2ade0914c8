"""Plain values as bytes, and bytes as plain values: the only messages that cross the sandbox.

A value is a tag, a length and a payload; containers hold further values. Decoding builds nothing but exact
types of Python's own, so whatever sits at the other end, ``==`` on the result is Python's own. Pickle would run the
sender's code, and JSON cannot tell a tuple from a list or carry a set, bytes or an integer key.
"""

from __future__ import annotations

import os
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LENGTH = struct.Struct("<Q")
_HEADER = struct.Struct("<cQ")
_FLOAT = struct.Struct("<d")
_COMPLEX = struct.Struct("<dd")
_CONSTANTS: dict[bytes, Any] = {b"N": None, b"T": True, b"F": False}

MAX_FRAME = 16 * 2**20
"""Bytes one message may have. The largest HumanEval answer is a few kilobytes."""


class NotPlain(TypeError):
    """A value that is not built of plain types, and so cannot be sent."""


class Malformed(ValueError):
    """Bytes that :func:`encode` never writes."""


def encode(value: Any) -> bytes:
    """Bytes of a plain value; a subclass (a Counter, a named tuple) travels as the built-in it derives from.

    Raises NotPlain for anything that is not int, float, complex, str, bytes, bool, None, list, tuple, dict,
    set, frozenset, Decimal, Fraction or a nesting of them.
    """
    if value is None or isinstance(value, bool):
        return _pack(b"N" if value is None else b"T" if value else b"F", b"")
    for kind, writer in _WRITERS:
        if isinstance(value, kind):
            return writer(value)
    if _is(value, "decimal", "Decimal"):
        return _pack(b"m", str(value).encode())
    if _is(value, "fractions", "Fraction"):
        return _write_items(b"q", [int(value.numerator), int(value.denominator)])
    raise NotPlain(f"{type(value).__name__} is not a plain value")


def decode(data: bytes) -> Any:
    """The value ``data`` stands for, of Python's own types exactly. Raises Malformed."""
    try:
        value, end = _read(data, 0)
    except (struct.error, ValueError, TypeError, KeyError, ArithmeticError, RecursionError) as error:
        raise Malformed(f"not a value: {type(error).__name__}") from error
    if end != len(data):
        raise Malformed("bytes left over after the value")
    return value


def send(fd: int, value: Any) -> None:
    """Write one value to a pipe, its length first. Raises NotPlain, OSError."""
    payload = encode(value)
    data = memoryview(_LENGTH.pack(len(payload)) + payload)
    while data:
        data = data[os.write(fd, data) :]


def receive(fd: int) -> Any:
    """Read one value from a pipe. Raises EOFError when the other end has gone, Malformed."""
    (size,) = _LENGTH.unpack(_read_exactly(fd, _LENGTH.size))
    if size > MAX_FRAME:
        raise Malformed(f"a message of {size} bytes; {MAX_FRAME} are allowed")
    return decode(_read_exactly(fd, size))


def split_frame(buffer: bytes) -> tuple[Any, bytes] | None:
    """The first value in a buffer and what follows it; None while the value is incomplete."""
    if len(buffer) < _LENGTH.size:
        return None
    (size,) = _LENGTH.unpack_from(buffer)
    end = _LENGTH.size + size
    return (decode(buffer[_LENGTH.size : end]), buffer[end:]) if len(buffer) >= end else None


def _pack(tag: bytes, payload: bytes) -> bytes:
    return _HEADER.pack(tag, len(payload)) + payload


def _is(value: Any, module: str, name: str) -> bool:
    """Whether the value is of a class in a module that is slow to import; if it is, the module is imported already."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(value, kind)


def _write_int(value: int) -> bytes:
    number = int(value)
    return _pack(b"i", number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True))


def _write_items(tag: bytes, values: list[Any]) -> bytes:
    return _HEADER.pack(tag, len(values)) + b"".join(map(encode, values))


_WRITERS: tuple[tuple[type, Any], ...] = (
    (int, _write_int),
    (float, lambda value: _pack(b"f", _FLOAT.pack(value))),
    (complex, lambda value: _pack(b"c", _COMPLEX.pack(value.real, value.imag))),
    # A lone surrogate is a legal character of a Python string.
    (str, lambda value: _pack(b"u", value.encode("utf-8", "surrogatepass"))),
    (bytes, lambda value: _pack(b"b", bytes(value))),
    (bytearray, lambda value: _pack(b"b", bytes(value))),
    (list, lambda value: _write_items(b"l", list(value))),
    (tuple, lambda value: _write_items(b"t", list(value))),
    (set, lambda value: _write_items(b"s", list(value))),
    (frozenset, lambda value: _write_items(b"z", list(value))),
    (dict, lambda value: _write_items(b"d", [part for pair in value.items() for part in pair])),
)


def _read(data: bytes, at: int) -> tuple[Any, int]:
    tag, size = _HEADER.unpack_from(data, at)
    at += _HEADER.size
    if tag in _CONTAINERS:
        items, end = _read_items(data, at, size)
        return _CONTAINERS[tag](items), end
    if len(data) - at < size:
        raise Malformed("a value is cut short")
    return _scalar(tag, data[at : at + size]), at + size


def _read_items(data: bytes, at: int, count: int) -> tuple[list[Any], int]:
    items = []
    for _ in range(count):
        item, at = _read(data, at)
        items.append(item)
    return items, at


def _pairs(items: list[Any]) -> dict[Any, Any]:
    return dict(zip(items[::2], items[1::2], strict=True))


def _fraction(items: list[Any]) -> Any:
    from fractions import Fraction

    numerator, denominator = items
    return Fraction(numerator, denominator)


_CONTAINERS: dict[bytes, Any] = {
    b"l": list, b"t": tuple, b"s": set, b"z": frozenset, b"d": _pairs, b"q": _fraction
}  # fmt: skip


def _scalar(tag: bytes, payload: bytes) -> Any:
    if tag == b"i":
        return int.from_bytes(payload, "little", signed=True)
    if tag == b"f":
        return _FLOAT.unpack(payload)[0]
    if tag == b"c":
        return complex(*_COMPLEX.unpack(payload))
    if tag == b"u":
        return payload.decode("utf-8", "surrogatepass")
    if tag == b"m":
        from decimal import Decimal

        return Decimal(payload.decode())
    return payload if tag == b"b" else _CONSTANTS[tag]


def _read_exactly(fd: int, size: int) -> bytes:
    chunks = []
    while size:
        chunk = os.read(fd, min(size, 1 << 16))
        if not chunk:
            raise EOFError("the other end has gone")
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)
