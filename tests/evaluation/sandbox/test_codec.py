"""Values that cross the pipe, and bytes that only an attacker writes."""

from __future__ import annotations

import random
import struct
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import pytest

from hiplora.evaluation.sandbox import Check
from hiplora.evaluation.sandbox.guest import codec


def test_malformed_bytes_are_refused() -> None:
    samples = [
        b"", b"x", b"i", struct.pack("<cQ", b"u", 1 << 62), struct.pack("<cQ", b"l", 1 << 62),
        struct.pack("<cQ", b"u", 1) + b"\xff", struct.pack("<cQ", b"?", 0), struct.pack("<cQ", b"f", 3) + b"abc",
        codec.encode(1) + b"x", struct.pack("<cQ", b"d", 1) + codec.encode(1),
        struct.pack("<cQ", b"s", 1) + codec.encode([]), struct.pack("<cQ", b"m", 1) + b"x",
        struct.pack("<cQ", b"q", 2) + codec.encode(1) + codec.encode(0), struct.pack("<cQ", b"q", 1) + codec.encode(1),
        struct.pack("<cQ", b"t", 1) * 5000,
    ]  # fmt: skip
    for sample in samples:
        with pytest.raises(codec.Malformed):
            codec.decode(sample)


def test_damaged_messages_never_decode_to_anything_but_plain_values() -> None:
    generator = random.Random(0)
    honest = codec.encode(
        {"a": [1, 2.5, (None, True)], b"b": {3, "č"}, 7: frozenset({1j}), 8: [Decimal("-1.50"), Fraction(1, 3)]}
    )
    for _ in range(3000):
        damaged = bytearray(honest)
        for _ in range(generator.randint(1, 4)):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        try:
            codec.encode(codec.decode(bytes(damaged)))
        except codec.Malformed:
            continue


def test_preamble_is_what_precedes_the_function() -> None:
    prompt = "import math\n\ndef helper(f):\n    return f\n\ndef f(x):\n    '''Doubles.\n"
    check = Check(prompt=prompt, completion="", test="", entry_point="f", timeout=1.0)
    assert check.preamble == "import math\n\ndef helper(f):\n    return f\n\n"
    assert replace(check, prompt="x = 1\n").preamble == "x = 1\n"
