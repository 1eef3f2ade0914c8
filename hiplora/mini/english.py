"""The little English grammar that generated sentences need."""

from __future__ import annotations


def start(text: str) -> str:
    """The text as the beginning of a sentence: "the Netherlands" -> "The Netherlands"."""
    return text[0].upper() + text[1:]


def with_article(noun: str) -> str:
    """ "apple" -> "an apple". Every noun used here follows the vowel-letter rule."""
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """1, "apple" -> "1 apple"; 3, "apple" -> "3 apples"."""
    return f"{number} {singular if number == 1 else plural or singular + 's'}"


def listed(parts: list[str]) -> str:
    """["a", "b", "c"] -> "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
