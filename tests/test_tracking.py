"""What W&B is given, and that a W&B which fails costs nothing but itself."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hiplora.errors import UserError
from hiplora.tracking import Tracker, Tracking, flat

CURVE = [{"step": step, "loss": 1 / step} for step in range(1, 9)]


class Server:
    """A recorded wandb: one run, of which the server has the steps below ``has``."""

    def __init__(self, *, has: int = 0, failing: bool = False) -> None:
        self.has, self.failing = has, failing
        self.started: list[dict[str, Any]] = []
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.summary: dict[str, float] = {}
        self.finished: list[int] = []

    def init(self, **options: Any) -> Any:
        self.started.append(options)
        resumed = bool(self.has) and options.get("resume") == "allow"
        finish = lambda exit_code: self.finished.append(exit_code)  # noqa: E731
        return SimpleNamespace(resumed=resumed, step=self.has, log=self.log, summary=self.summary, finish=finish)

    def log(self, values: dict[str, float], *, step: int) -> None:
        if self.failing:
            raise OSError("connection lost")
        self.logged.append((step, values))


def tracked(folder: Path, *, enabled: bool = True) -> Tracking:
    return Tracking(enabled=enabled, folder=folder / "outputs")


@pytest.fixture
def tracker(tmp_path: Path) -> Tracker:
    chosen = tracked(tmp_path).curve(name="hip-gsm8k-s42", id="0123456789ab", kind="train", asked={"seed": 42})
    assert chosen is not None
    return chosen


def serve(monkeypatch: pytest.MonkeyPatch, **options: Any) -> Server:
    server = Server(**options)
    monkeypatch.setitem(sys.modules, "wandb", server)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return server


def test_a_run_is_named_and_offline_unless_the_user_says_otherwise(tracker, tmp_path, monkeypatch) -> None:
    server = serve(monkeypatch)
    tracker.start()
    monkeypatch.setenv("WANDB_MODE", "online")
    tracker.start()
    offline, online = server.started
    assert offline["mode"] == "offline"
    assert "mode" not in online, "wandb reads WANDB_MODE itself"
    assert "resume" not in online, "a training from its beginning replaces what is there"
    assert online["name"] == online["group"] == "hip-gsm8k-s42-0123456789ab"
    assert online["id"] == "0123456789ab"
    assert online["dir"] == str(tmp_path / "outputs")
    assert Path(online["dir"]).is_dir()
    assert tracked(tmp_path, enabled=False).curve(name="x", id="x", kind="train", asked={}) is None


def test_what_a_server_lacks_of_a_resumed_curve_is_given_to_it(tracker, monkeypatch) -> None:
    server = serve(monkeypatch, has=6)  # killed after step 5, the checkpoint is of step 4
    run = tracker.start(resumed=True)
    run.curve(CURVE[:4])
    for entry in CURVE[4:]:
        run.curve([entry])
    run.finish()
    assert server.logged == [(entry["step"], {"train/loss": entry["loss"]}) for entry in CURVE[5:]]
    assert server.finished == [0]


def test_a_failing_log_is_told_once_and_stops_nothing(tracker, monkeypatch, caplog) -> None:
    serve(monkeypatch, failing=True)
    run = tracker.start()
    run.curve(CURVE)
    run.summary({"adapted/gsm8k/acc": 0.5})
    run.finish()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "connection lost" in caplog.text


def test_a_start_that_fails_is_refused_and_a_written_record_is_not(tracker, tmp_path, monkeypatch, caplog) -> None:
    server = serve(monkeypatch)
    monkeypatch.setattr(server, "init", lambda **options: 1 / 0)
    with pytest.raises(UserError, match=r"could not be started .*WANDB_MODE=offline"):
        tracker.start()
    numbers = {"gsm8k": {"acc": 1.0}}
    tracked(tmp_path).publish(name="x", id="x", group="x", kind="score", asked={}, numbers=numbers)
    assert "the record is written" in caplog.text


def test_without_the_package_it_is_refused_before_anything_is_computed(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="pip install wandb"):
        tracked(Path()).check()
    tracked(Path(), enabled=False).check()


def test_scores_go_by_their_path() -> None:
    metrics = {
        "code": {"pass@1": None, "n": 40},
        "parts": [{"size": 2, "text": {"nll": 2.5}, "runs": {}}],
    }
    assert flat(metrics) == {"code/n": 40, "parts/0/size": 2, "parts/0/text/nll": 2.5}
