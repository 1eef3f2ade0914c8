"""What is rendered: tables and figures, under conf/ and under other settings, and as the tracked records say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hiplora import reproduce
from hiplora.compose import compose_cached
from hiplora.report import figure, table
from hiplora.report.experiment import load, product
from hiplora.report.figures import FIGURES
from hiplora.report.find import gather, identify
from hiplora.report.tables import TABLES
from tests.report.evidence import build
from tests.reproduce.helpers import ROOT, run


def test_render_only_writes_three_files(results, capsys):
    assert run(results, "--render-only") == 0
    assert "| LoRA | 71.0 ± 1.0 (3) |" in capsys.readouterr().out
    assert len(list((results / "mini" / "tables").iterdir())) == 3


def test_a_figure_is_rendered_as_a_table_is(folder, capsys):
    """Without any record, its picture, points and page are written, and it says what makes it."""
    assert reproduce.main(["figure8", "--render-only", f"results_dir={folder}"]) == 0
    assert "# Figure 8. Merges that keep τ of every task's gain" in capsys.readouterr().out
    assert sorted(path.name for path in (folder / "mini" / "figures").iterdir()) == [
        f"figure8.{end}" for end in ("csv", "md", "pdf", "png")
    ]


def test_records_of_other_settings_are_left_out_and_explained(results, capsys):
    """Same labels, other training: their numbers must not appear, and a complete table does not change with them."""
    assert run(results, "--render-only", "training.steps=7") == 0
    table, said = capsys.readouterr()
    assert "| LoRA | – |" in table
    assert "other record(s)" not in table
    assert "Note: 24 other record(s)" in said
    assert "training.steps=60, not 7 (24)" in said
    assert run(results, "--plan", "training.steps=7") == 0
    assert "Note: 24 other record(s)" in capsys.readouterr().out


def test_where_a_run_keeps_its_files_is_no_reason_to_leave_records_out(results, capsys):
    words = ("outputs_dir=elsewhere", "save_basis=true", "training.log_every=3", "model.device=cpu")
    assert run(results, "--render-only", *words) == 0
    printed = capsys.readouterr()
    assert "| LoRA | 71.0 ± 1.0 (3) |" in printed.out
    assert "other record(s)" not in printed.err


def test_a_table_under_other_settings_says_so_and_leaves_the_table_alone(results, capsys):
    assert run(results, "--render-only") == 0
    plain = capsys.readouterr().out
    tables = results / "mini" / "tables"
    before = {path.name: path.read_bytes() for path in tables.iterdir()}
    assert run(results, "--render-only", "training.steps=7", "hydra/launcher=basic", "seed=42") == 0
    text = capsys.readouterr().out
    assert "Not under the settings of conf/, but with training.steps=7." in text
    assert f"python -m hiplora.reproduce table1 training.steps=7 results_dir={results}\n" in text
    assert "Not under" not in plain
    names = {path.name for path in tables.iterdir()}
    assert len(names) == 6
    assert {name: (tables / name).read_bytes() for name in before} == before


def test_rows_that_selection_made_one_are_no_fault_of_a_setting(folder):
    """Where the best HiP-LoRA is also the best whose channel moves, two rows of Table 16 are the same runs."""
    axes = {"method": {"hip": "method=hip", "hip_gated": "method=hip"}, "task": ["gsm8k"], "seed": ["42"]}
    runs = product("frontier", {"pipeline": "frontier", "axes": axes})
    first, second = identify(replace(load("table16"), runs=runs), [f"results_dir={folder}"])
    assert [entry.stage.id for entry in first.entries] == [entry.stage.id for entry in second.entries]


def test_every_table_and_figure_is_as_its_tracked_records_say(monkeypatch):
    """What lies under results/mini is what the records render, so it names numbers only while their records are found.

    Only what is complete lies there. A figure's points and page stand for its pictures, whose bytes differ between
    machines.
    """
    monkeypatch.chdir(ROOT)
    results = compose_cached([]).places.results
    kinds = {"tables": TABLES, "figures": FIGURES}
    there = [
        (kind, name) for kind, names in kinds.items() for name in names if (results / kind / f"{name}.md").is_file()
    ]
    if not there:
        pytest.skip("nothing is rendered yet")
    for kind, name in there:
        experiment = load(name)
        command = f"python -m hiplora.reproduce {name}"
        found = gather(experiment, identify(experiment, []), settings=[], command=command)
        made = build(name, found)
        if kind == "tables":
            texts = {"md": made.text(), "csv": table.to_csv(made.cells), "tex": table.latex(made)}
        else:
            texts = {"md": made.text(), "csv": figure.to_csv(made.dots)}
        for ending, text in texts.items():
            path = results / kind / f"{name}.{ending}"
            count = len(found.recorded)
            assert path.read_text() == text, f"{path} is not what make render-{name} writes from {count} records"
