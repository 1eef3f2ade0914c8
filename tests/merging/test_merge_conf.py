"""conf/merge and the operators' classes say the same, and every field carries its mark."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from hiplora.merging import OPERATORS, operator_class

CONF = Path(__file__).parents[2] / "conf" / "merge"
MARK = re.compile(r"#.*\[(paper|lost|ours|corrected|review)\]")


def test_one_file_per_operator():
    assert {p.stem for p in CONF.glob("*.yaml")} == set(OPERATORS)


@pytest.mark.parametrize("name", OPERATORS)
def test_fields_and_defaults_agree_and_are_marked(name):
    text = (CONF / f"{name}.yaml").read_text()
    values = yaml.safe_load(text)
    cls = operator_class(name)
    defaults = {key: field.default for key, field in cls.model_fields.items() if key != "name"}
    assert values == {"name": name, **defaults}
    assert cls(**values).resolved()["operator"] == name
    assert all(MARK.search(line) for line in text.splitlines() if line and not line.startswith("#"))
