"""General question-answer instructions: the training corpus that belongs to the `mmlu` benchmark.

    {"instruction": "The capital of France is", "input": "", "output": "Paris"}
    {"instruction": "What is the opposite of hot?", "input": "", "output": "The opposite of hot is cold."}

As with the big benchmark the corpus is not the benchmark: other countries, other relations, other subjects.
"""

from __future__ import annotations

from hiplora.mini import world
from hiplora.mini.draw import Draw
from hiplora.mini.english import start, with_article
from hiplora.mini.facts import words

QUESTIONS = {
    "capitals": "What is the capital of {s}?",
    "countries": "Of which country is {c} the capital?",
    "continents": "On which continent is {s}?",
    "currencies": "What is the currency of {s}?",
    "languages": "What is the main language of {s}?",
    "borders": "Name a country that shares a border with {s}.",
    "cities": "In which country is the city of {c}?",
}
# relation -> (sentence to be completed, question); the subject goes in the braces.
WORDS = {
    "opposite": ("The opposite of {} is", "What is the opposite of {}?"),
    "past tense": ("The past tense of {} is", "What is the past tense of {}?"),
    "plural": ("The plural of {} is", "What is the plural of {}?"),
    "occupation": ("Someone who {} is called", "What do you call someone who {}?"),
    "use": ("To {}, you need", "What do you need to {}?"),
    "place": ("A good place to {} is", "Where would you go to {}?"),
    "category": ("{} is a kind of", "What kind of thing is {}?"),
    "next": ("What comes right after {} is", "What comes right after {}?"),
    "idiom meaning": ('The phrase "{}" means', 'What does the phrase "{}" mean?'),
}


def _row(instruction: str, output: str) -> dict[str, str]:
    return {"instruction": instruction, "input": "", "output": output}


def _world_rows() -> list[dict[str, str]]:
    rows = []
    for fact in world.facts("train"):
        city = fact.stem.removeprefix("The city of ").removesuffix(" is the capital of").removesuffix(" is in")
        question = QUESTIONS[fact.relation].format(s=fact.subject, c=city)
        rows += [
            _row(fact.stem, fact.value),
            {"instruction": "Complete the sentence.", "input": fact.stem, "output": fact.value},
            _row(question, start(f"{fact.stem} {fact.value}.")),
        ]
    return rows


def _code_rows() -> list[dict[str, str]]:
    """Two relations that the benchmark does not ask for."""
    rows = []
    for country in world.members("train"):
        rows.append(_row(f"Websites in {country.name} often end in", country.tld))
        if country.calling_code:
            rows.append(_row(f"What is the calling code of {country.name}?", f"+{country.calling_code}"))
    return rows


def _word_rows() -> list[dict[str, str]]:
    rows = []
    for relation, subject, value in words():
        stem, question = (form.format(subject) for form in WORDS[relation])
        stem, value = start(stem), with_article(value) if relation == "occupation" else value
        rows += [_row(stem, value), _row(question, f"{stem} {value}.")]
    return rows


def training() -> list[dict[str, str]]:
    """Alpaca's columns, shuffled."""
    return Draw("alpaca").shuffled(_world_rows() + _code_rows() + _word_rows())
