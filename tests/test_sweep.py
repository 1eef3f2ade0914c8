"""What the summary of a multirun counts: its own jobs, whatever an earlier one left in the same folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from hiplora.sweep import SweepSummary, forget, write_status


class Sweep:
    """A multirun with a fixed folder; a job writes its overrides as Hydra does, and ends as it is told."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.callback = folder, SweepSummary()
        places = {"outputs_dir": str(folder.parent), "results_dir": str(folder.parent)}
        self.config = OmegaConf.create({**places, "hydra": {"sweep": {"dir": str(folder)}}})

    def run(self, **jobs: str) -> None:
        self.callback.on_multirun_start(self.config)
        for name, end in jobs.items():
            job = self.folder / name.removeprefix("job")
            (job / ".hydra").mkdir(parents=True, exist_ok=True)
            (job / ".hydra/overrides.yaml").write_text(f"- seed={name}\n")
            forget(job)
            if end != "killed":
                write_status(job, failed=None if end == "ok" else end)
        self.callback.on_multirun_end(self.config)


@pytest.fixture
def sweep(tmp_path, monkeypatch) -> Sweep:
    monkeypatch.setattr(SweepSummary, "running", None)
    monkeypatch.setattr(SweepSummary, "before", {})
    return Sweep(tmp_path / "sweep")


def test_what_an_earlier_sweep_left_is_not_counted(sweep, capsys):
    sweep.run(job0="ok", job1="ok", job2="ok")
    assert "Sweep: 3 of 3 jobs succeeded." in capsys.readouterr().out
    with pytest.raises(SystemExit):
        sweep.run(job0="ok", job1="killed")
    text = capsys.readouterr().out
    assert "Sweep: 1 of 2 jobs succeeded." in text
    assert "FAILED  1: seed=job1\n          ended without a status" in text


def test_jobs_are_found_under_any_name_and_no_job_is_no_success(sweep, capsys):
    sweep.run(**{"seed=42": "ok", "task=mmlu/seed=7": "ok"})
    text = capsys.readouterr().out
    assert "Sweep: 2 of 2 jobs succeeded." in text
    assert "ok      task=mmlu/seed=7: seed=" in text
    with pytest.raises(SystemExit):
        sweep.run()
    assert "Sweep: 0 of 0 jobs succeeded." in capsys.readouterr().out
