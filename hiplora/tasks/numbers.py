"""Numbers in the text of answers: GSM8K's final answer, and the last number that a model wrote."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

MINUS = str.maketrans(dict.fromkeys("\u2212\u2010\u2011\u2013\uff0d\ufe63", "-"))  # characters used as minus signs
# A minus sign counts unless a word character, a point or a closing bracket precedes it: 10-12 is a range, -12 a number.
NUMBER = re.compile(r"(?:(?<![\w.)])-)?(?:\$-?)?(?:\d[\d,]*(?:\.\d+)?|\.\d+)")


def final_answer(item: Mapping[str, Any]) -> str:
    """The number after ``####``, without thousands separators and with a plain minus sign."""
    return item["answer"].rsplit("####", 1)[-1].strip().replace(",", "").translate(MINUS)


def last_number(text: str) -> str | None:
    """The last number in a text, without currency sign, separators, final full stop or trailing zeros; or None."""
    found = NUMBER.findall(text.translate(MINUS))
    if not found:
        return None
    number = Decimal(found[-1].replace("$", "").replace(",", "")).normalize()
    return f"{number + 0:f}"  # + 0 turns -0 into 0
