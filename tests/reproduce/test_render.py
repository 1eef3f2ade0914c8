"""What is rendered: tables and figures, under conf/ and under other settings, and as the tracked records say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hiplora import reproduce
from hiplora.compose import compose_cached
from hiplora.report.experiment import load, product
from hiplora.report.find import gather, identify
from hiplora.report.table import latex, markdown, to_csv
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
    """Same labels, other training: their numbers must not appear."""
    assert run(results, "--render-only", "training.steps=7") == 0
    text = capsys.readouterr().out
    assert "| LoRA | – |" in text
    assert "24 other record(s)" in text
    assert "training.steps=60, not 7 (24)" in text


def test_where_a_run_keeps_its_files_is_no_reason_to_leave_records_out(results, capsys):
    words = ("outputs_dir=elsewhere", "save_basis=true", "training.log_every=3", "model.device=cpu")
    assert run(results, "--render-only", *words) == 0
    text = capsys.readouterr().out
    assert "| LoRA | 71.0 ± 1.0 (3) |" in text
    assert "other record(s)" not in text


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


def test_every_table_is_as_its_tracked_records_say(monkeypatch):
    """Tables under results/mini/tables are those that the records render; only complete ones are there."""
    monkeypatch.chdir(ROOT)
    if not any((compose_cached([]).places.results / "tables").glob("*")):
        pytest.skip("no table is rendered yet")
    compared = []
    for name in TABLES:
        experiment = load(name)
        if not (compose_cached([]).places.results / "tables" / f"{name}.md").is_file():
            continue  # it is not complete yet
        slots = identify(experiment, [])
        found = gather(experiment, slots, settings=[], command=f"python -m hiplora.reproduce {name}")
        if found.recorded:
            compared.append(name)
        if found.recorded or (not slots and (found.folder / "tables" / f"{name}.md").is_file()):
            table = build(name, found)
            texts = {"md": markdown(table), "csv": to_csv(table.cells), "tex": latex(table)}
            for ending, text in texts.items():
                path = found.folder / "tables" / f"{name}.{ending}"
                assert path.read_text() == text, f"{path} is not what make render-{name} writes"
    print(f"Compared with the tracked records: {', '.join(compared) or 'no table, as none has a record yet'}")
