"""Table 1 from committed fixtures: against numbers worked out by hand, and against golden files."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace

import pytest

from hiplora.report.table import latex, markdown, to_csv
from hiplora.report.tables.table1 import BASE, build
from tests.report.evidence import HERE, everything, fixture_evidence, golden, labelled


@pytest.fixture(scope="module")
def table():
    return build(fixture_evidence("table1"))


def adapters(method, tasks, seeds):
    """Ids of the scores of adapters."""
    found = [labelled(everything, "adapter", method=method, task=t, seed=s) for s in seeds for t in tasks]
    return tuple(record.id for (record,) in found)


def test_golden_latex(table):
    assert latex(table) == golden(HERE / "golden" / "table1.tex", latex(table))


def test_own_benchmark_mean_and_std(table):
    # LoRA gains 20, 21 and 22 points over 50 with seeds 42, 100 and 2024.
    cell = table.cell("LoRA", "MMLU (%)")
    assert (cell.value, cell.std, cell.n, cell.n_expected) == (pytest.approx(71), pytest.approx(1), 3, 3)
    # t quantile for 2 degrees of freedom: 4.30265.
    assert cell.ci_high - cell.value == pytest.approx(4.30265 / math.sqrt(3), rel=1e-5)
    assert cell.runs == adapters("lora", ["mmlu"], [42, 100, 2024])


def test_retain_leaves_out_a_seed_that_lacks_an_adapter(table):
    # HiP's seed 2024 has two of its four adapters: Retain is over seeds 42 (2 pp) and 100 (3 pp) alone.
    cell = table.cell("HiP-LoRA", "Retain (pp)")
    assert (cell.value, cell.n, cell.n_expected, cell.paper) == (pytest.approx(2.5), 2, 3, None)
    (base,) = table.cell("Backbone, no adapter", "GSM8K (%)").runs
    assert cell.runs == (base, *adapters("hip", ["mmlu", "gsm8k", "code", "scienceqa"], [42, 100]))
    assert "2.50 ± 0.71 (2/3)" in markdown(table)


def test_a_run_without_code_execution_is_left_out_of_retain_alone(table):
    assert table.cell("LoRA", "Retain (pp)").n == 2
    assert table.cell("LoRA", "Retain-NLL (nats/token)").n == 3
    assert any("only likelihoods were asked for: 1 of 22" in note for note in table.notes)


def test_absent_rows_are_dashes_and_never_numbers(table):
    cell = table.cell("PiSSA", "GSM8K (%)")
    assert (cell.value, cell.n, cell.n_expected, cell.runs) == (None, 0, 3, ())


def test_a_task_of_ones_own_has_a_column_behind_those_of_the_benchmarks():
    def renamed(run):
        return replace(run, point={key: "sums" if value == "mmlu" else value for key, value in run.point.items()})

    evidence = fixture_evidence("table1")
    grid = evidence.experiment
    grid = replace(grid, runs=[renamed(run) for run in grid.runs], labels={**grid.labels, "sums": "My sums"})
    slots = [replace(slot, run=renamed(slot.run)) for slot in evidence.slots]
    table = build(replace(evidence, experiment=grid, slots=slots))
    assert [column.label for column in table.columns[:4]] == ["GSM8K (%)", "pass@1 (%)", "ScienceQA (%)", "My sums (%)"]
    assert table.cell("LoRA", "My sums (%)").value == pytest.approx(71)
    assert table.cell(BASE, "My sums (%)").value == pytest.approx(50)


def test_the_backbone_is_one_measurement(table):
    cell = table.cell(BASE, "GSM8K (%)")
    assert (cell.value, cell.std, cell.n, cell.n_expected) == (pytest.approx(5), None, 1, 1)


def test_a_mini_number_is_never_called_a_reproduction(table):
    text = markdown(table)
    assert "nothing here is a reproduction" in text
    assert "paper's Retain (pp), Llama-3.1-8B" in text


def test_it_says_who_drew_the_dropout_masks(table):
    assert any("computed once, with one dropout mask for each (22 trainings)" in note for note in table.notes)


def test_commands_cover_exactly_what_is_missing(table):
    assert table.commands == (
        "python -m hiplora.run -m method=proj,pissa,hip_absolute task=mmlu,gsm8k,code,scienceqa seed=42,100,2024",
        "python -m hiplora.run -m method=hip task=gsm8k,code seed=2024",
    )


def test_no_records_at_all_still_renders():
    table = build(fixture_evidence("table1", keep=lambda label: False))
    assert {cell.value for cell in table.cells} == {None}
    assert "No run of this table is there yet." in markdown(table)


def test_csv_and_files(table, tmp_path):
    read = list(csv.DictReader(io.StringIO(to_csv(table.cells))))
    assert [row["row"] for row in read] == [cell.row for cell in table.cells]
    first = table.cell("LoRA", "MMLU (%)")
    row = next(row for row in read if (row["row"], row["column"]) == (first.row, first.column))
    assert (float(row["value"]), row["paper"], row["marks"]) == (pytest.approx(first.value), "", "")
    assert tuple(row["runs"].split(";")) == first.runs
    paths = table.write(tmp_path)
    assert sorted(path.name for path in paths) == ["table1.csv", "table1.md", "table1.tex"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["table1.csv", "table1.md", "table1.tex"]
