"""A folder of lm-eval tasks of every kind, with their data: what a user gives as ``evaluation.include_path``."""

from __future__ import annotations

import json
from pathlib import Path

COLOURS = ("red", "green", "blue")
TASKS = ("toy_choice", "toy_written", "toy_last", "toy_text")
HEAD = """task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: {kind}
"""
BODIES = {
    "toy_choice": (
        "multiple_choice",
        """
tag: toys
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: "{{options}}"
doc_to_target: "{{right}}"
num_fewshot: 2
fewshot_split: test
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
metadata: {version: 1.5}
""",
    ),
    "toy_written": (
        "generate_until",
        """
tag: toys
doc_to_text: "Write: {{question}} "
doc_to_target: "{{options[right]}}"
generation_kwargs: {until: ["\\n", "re"], do_sample: false, max_gen_toks: 12}
process_results: !function toy_scores.length
filter_list:
  - name: whole
    filter: [{function: take_first}]
  - name: word
    filter: [{function: regex, regex_pattern: "(\\\\w+)"}, {function: take_first}]
metric_list:
  - {metric: length, aggregation: mean, higher_is_better: true}
metadata: {version: 1.0}
""",
    ),
    "toy_last": (
        "loglikelihood",
        """
doc_to_text: "{{question}} It is "
doc_to_target: "{{options[right]}}"
metric_list:
  - {metric: perplexity, aggregation: perplexity, higher_is_better: false}
  - {metric: acc, aggregation: mean, higher_is_better: true}
metadata: {version: 1.0}
""",
    ),
    "toy_text": (
        "loglikelihood_rolling",
        """
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list:
  - {metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}
  - {metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}
metadata: {version: 1.0}
""",
    ),
}
SCORES = '''"""Scores of what was written."""


def length(doc, results):
    return {"length": len(results[0]) / 100}
'''
GROUP = """group: toy_group
task: [toy_choice, {task: toy_last, num_fewshot: 1, fewshot_split: test}]
aggregate_metric_list:
  - {metric: acc, weight_by_size: true}
metadata: {version: 2.0}
"""


def toy_tasks(folder: Path, *, items: int = 7) -> Path:
    """Write four tasks, a tag and a group of two, with data of so many rows; a text is longer than the tiny model."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "question": f"Which colour has thing {n}?",
            "options": [*COLOURS],
            "right": n % 3,
            "text": " ".join(f"The brown fox {n} jumps over {n + k} lazy dogs." for k in range(40 * (n == 0) + n + 1)),
        }
        for n in range(items)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "toy_scores.py").write_text(SCORES)
    (folder / "group.yaml").write_text(GROUP)
    for name, (kind, body) in BODIES.items():
        head = HEAD.format(name=name, kind=kind, data=folder / "rows.jsonl")
        (folder / f"{name}.yaml").write_text(head + body.lstrip())
    return folder
