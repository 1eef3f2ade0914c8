"""Table 4 against conf/ itself: every setting is there, as it composes, with the mark of its own line."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from hiplora import conf_dir
from hiplora.compose import raw_composition
from hiplora.conf_dir import CONF_DIR
from hiplora.errors import UserError
from hiplora.report.stated import marks, stated
from hiplora.report.table import latex
from hiplora.report.tables import table4
from tests.report.evidence import fixture_evidence


@pytest.fixture(scope="module")
def table():
    return table4.build(fixture_evidence("table4"))


def test_every_setting_is_there_with_its_mark(table):
    """Of one composition, against what Hydra gives; those that refer to another field are that one's."""
    rows = {(cell.row, cell.column): cell.words for cell in table.cells}
    raw = raw_composition(["scale=paper", "method=proj", "merge=ties", "pipeline=merge"])
    behind = {"method": "method=proj ", "merge": "merge=ties ", "task": "task=gsm8k "}
    for section in ("model", "svd", "training", "evaluation", "merging", "efficiency", *behind):
        for name in raw[section].keys() - {"name"}:
            assert rows[f"{behind.get(section, '')}{section}.{name}", "scale=paper"]
    assert not any("pipeline=backbone" in row for row, _ in rows)
    assert rows["training.rows_per_step", "scale=paper"] == "128 [paper]"
    assert rows["training.rows_per_step", "scale=mini"] == "2 [ours]"
    assert rows["method=proj method.side", "scale=mini"] == "outside [paper]"
    assert rows["pipeline=probe pipeline.count.zero", "scale=mini"] == "29 [paper]"
    assert rows["evaluation.limit", "scale=mini"] == "null [ours]"
    assert rows["pipeline=evaluate pipeline.adapter", "scale=mini"] == "must be typed [ours]"


def test_an_option_that_starts_from_another_shows_what_it_changes(table):
    rows = dict.fromkeys(cell.row for cell in table.cells)
    assert [row for row in rows if row.startswith("method=hip_no_stability ")] == [
        "method=hip_no_stability method.stability",
        "method=hip_no_stability method.lr_scale",
    ]
    assert sorted(name for rows in table.sections.values() for name in rows) == sorted(rows)


def test_a_longtable_has_its_headings_between_rows(table):
    text = latex(table)
    assert text.count(r"\begin{longtable}") == text.count(r"\endhead") == 1
    assert r"\multicolumn{3}{l}{Training} \\" in text


def test_what_was_selected_stands_behind_its_method(tmp_path, monkeypatch):
    conf = tmp_path / "conf"
    shutil.copytree(CONF_DIR, conf)
    for path in (conf / "selected/mini").glob("*.yaml"):
        path.unlink()
    (conf / "selected/mini/hip.yaml").write_text("training:\n  lr: 3e-3 # [ours] selected\n")
    monkeypatch.setattr(conf_dir, "CONF_DIR", conf)
    found = stated(["scale=mini", "method=hip"])
    assert (found["training.lr"].value, found["training.lr"].file) == (3e-3, "selected/mini/hip")
    assert table4._row("training.lr", "selected/mini/hip") == "method=hip training.lr"
    assert stated(["scale=mini", "method=lora"])["training.lr"].file == "scale/mini"


def test_a_field_without_a_mark_is_refused_by_its_line(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("a: 1 # [ours] one [lost]\nb: # names\n  - c # [paper]\n  - d # [lost]\ne: ${a} # see a\n")
    assert marks(path) == {"a": "ours", "b": "paper, lost"}
    bare = tmp_path / "y.yaml"
    bare.write_text("defaults:\n  - hip\na: 1 # [ours]\nb: 2 # two\n")
    with pytest.raises(UserError, match=r"y\.yaml:4: b has no mark"):
        marks(bare)


def test_settings_of_the_users_own_are_refused():
    with pytest.raises(UserError, match=r"without training\.steps=5"):
        table4.build(replace(fixture_evidence("table4"), changed=("training.steps=5",)))
