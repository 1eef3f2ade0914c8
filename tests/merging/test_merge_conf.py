"""conf/merge and the operators' classes say the same, and every field carries its mark."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

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
    defaults = {f.name: f.default for f in fields(cls) if f.name != "name"}
    assert values == {"name": name, **defaults}
    checked = OmegaConf.merge(OmegaConf.structured(cls), values)
    assert cls(**OmegaConf.to_container(checked)).resolved()["operator"] == name
    assert all(MARK.search(line) for line in text.splitlines() if line and not line.startswith("#"))
