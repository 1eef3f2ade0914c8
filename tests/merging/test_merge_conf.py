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


def test_the_page_on_merging_has_every_operator_with_its_options():
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([^|]*) \|$", (CONF.parents[1] / "docs" / "merging.md").read_text(), re.M)
    options = {name: set(re.findall(r"`(\w+)`", cell)) for name, cell in rows}
    assert options == {name: set(operator_class(name).model_fields) - {"name", "calibration"} for name in OPERATORS}


@pytest.mark.parametrize("name", OPERATORS)
def test_fields_and_defaults_agree_and_are_marked(name):
    text = (CONF / f"{name}.yaml").read_text()
    values = yaml.safe_load(text)
    cls = operator_class(name)
    defaults = {key: field.default for key, field in cls.model_fields.items() if key != "name"}
    assert values == {"name": name, **defaults}
    assert cls(**values).resolved()["operator"] == name
    assert all(MARK.search(line) for line in text.splitlines() if line and not line.startswith("#"))
