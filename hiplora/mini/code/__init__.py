"""Small Python functions: the mini counterparts of HumanEval and of CodeAlpaca.

    {"task_id": "mini/0", "prompt": "def add(a, b):\\n    \\"\\"\\"Return …", "entry_point": "add",
     "canonical_solution": "\\n    return a + b\\n", "test": "def check(candidate):\\n    assert …"}
    {"instruction": "Write a Python function add_three(x). Return x plus 3.", "input": "",
     "output": "def add_three(x):\\n    return x + 3"}

The test functions and the training functions differ in name and in behaviour.
"""

from __future__ import annotations

from textwrap import indent

from hiplora.mini.code.families import Instruction, members
from hiplora.mini.code.functions import Function, functions
from hiplora.mini.draw import Draw, split_of

ITEMS = {"train": 1500, "validation": 150}
ASK = (
    "Write a Python function {call}. {purpose}",
    "Create a function {call} in Python. {purpose}",
    "Complete the Python function {call}.\n{purpose}",
)


def _problem(number: int, function: Function) -> dict[str, str]:
    call, value = function.cases[0]
    docstring = f'"""{function.purpose}\n\n>>> {call}\n{value}\n"""'
    cases = [(call.replace(function.name, "candidate", 1), value) for call, value in function.cases]
    asserts = "\n".join(f"    assert {call} == {value}" for call, value in cases)
    return {
        "task_id": f"mini/{number}",
        "prompt": f"def {function.name}({function.parameters}):\n{indent(docstring, '    ')}",
        "entry_point": function.name,
        # the line break belongs to the answer: after a break that stands alone a small model ends the code block
        "canonical_solution": f"\n{function.body}",
        "test": f"def check(candidate):\n{asserts}\n",
    }


def problems() -> list[dict[str, str]]:
    """HumanEval's columns."""
    return [_problem(number, function) for number, function in enumerate(functions())]


def _wordings(function: Instruction) -> list[dict[str, str]]:
    """The function asked for in three ways, twice answered with a docstring as in the benchmark."""
    call = f"{function.name}({function.parameters})"
    body = indent(function.body, "    ")
    plain = f"def {call}:\n{body}"
    documented = f'def {call}:\n    """{function.purpose}"""\n{body}'
    asked = [ask.format(call=call, purpose=function.purpose) for ask in Draw("wording", call).shuffled(ASK)]
    return [
        {"instruction": instruction, "input": "", "output": output}
        for instruction, output in zip(asked, (plain, documented, documented), strict=True)
    ]


def instructions(split: str) -> list[dict[str, str]]:
    """CodeAlpaca's columns, shuffled; what a function does decides its split."""
    chosen = [f for f in members() if split_of("function", f.anonymous, test=0.0, validation=0.12) == split]
    found = [row for function in chosen for row in _wordings(function)]
    return Draw("codealpaca", split).shuffled(found)[: ITEMS[split]]
