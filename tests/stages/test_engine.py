"""The engine on stages without torch: reuse, restore, force, stale, kill, two processes, plan."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from hiplora import environment
from hiplora.errors import UserError
from hiplora.parts import Parts
from hiplora.stages.base import Job, Made
from hiplora.stages.make import Outcome, Wanted, pending
from hiplora.stages.store import Status, Store
from tests.stages.toys import SOIL, Reap, Sow, engine

PLANT = Sow(seed=3)
ASKED = [Wanted(PLANT), Wanted(Reap(plant=PLANT))]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def garden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(asked=ASKED, *, outputs: str = "outputs", force: bool = False) -> tuple[list[Outcome], list[str]]:
    """Outcomes, and the kinds of what was made."""
    made = engine(Path(outputs), Path("results"), force=force)
    outcomes = made.run(asked)
    return outcomes, [line.split()[0] for line in made.made]


def tracked() -> dict[str, str]:
    """Every tracked file with its content."""
    return {str(path): path.read_text() for path in sorted(Path("results").rglob("*.json"))}


def status(outcome: Outcome) -> Status:
    """What a table thinks of a tracked record."""
    store = Store(engine(Path("outputs"), Path("results")).store.places, local=False)
    record = store.tracked.get((outcome.record.id, outcome.record.where))
    assert record is not None
    return store.status(record)


def test_the_same_command_again_makes_nothing() -> None:
    first, made = run()
    assert made == ["sow", "reap"]
    again, made = run()
    assert made == []
    assert [o.record for o in again] == [o.record for o in first]
    assert first[1].record.needs == {PLANT.id: first[0].record.digest}
    _, made = run([Wanted(Reap(plant=PLANT, parts=2))])
    assert made == ["reap"], "another question to the same plant"


def test_what_does_not_identify_a_stage_makes_no_other() -> None:
    assert Sow(seed=3, note="tall").id == PLANT.id != Sow(seed=4).id
    assert Sow(seed=3, after=PLANT).id not in (PLANT.id, Sow(seed=3, after=Sow(seed=4)).id)


def test_a_restored_artefact_changes_no_tracked_record() -> None:
    run()
    before = tracked()
    SOIL.write_text("5")  # a machine that gives something else
    outcomes, made = run(outputs="elsewhere")
    assert made == ["sow", "reap"], "the artefact is not there, and its harvest is not the recorded one's"
    assert tracked() == before
    assert all(outcome.recorded is not None and outcome.recorded != outcome.record for outcome in outcomes)
    again, made = run(outputs="elsewhere")
    assert made == []
    assert [o.record for o in again] == [o.record for o in outcomes], "runs look at what was restored first"
    assert status(outcomes[1]) is Status.GOOD, "the tracked pair still belongs together"

    SOIL.unlink()  # the same machine again: what is restored is the same, and stands for the record
    outcomes, made = run(outputs="third")
    assert made == ["sow"]
    assert tracked() == before
    assert all(outcome.recorded is None for outcome in outcomes)
    assert not list(Path("third/records").rglob("*.json"))


def test_a_process_with_other_outputs_that_records_first_is_not_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = Sow.run

    def overtaken(stage: Sow, job: Job) -> Made:
        monkeypatch.setattr(Sow, "run", alone)
        run(ASKED[:1], outputs="elsewhere")
        SOIL.write_text("5")
        return alone(stage, job)

    monkeypatch.setattr(Sow, "run", overtaken)
    outcomes, made = run(ASKED[:1])
    assert made == ["sow"]
    assert outcomes[0].recorded is not None, "the other process's record is tracked, this one's is local"
    assert outcomes[0].recorded.result.height == 3  # type: ignore[attr-defined]
    assert outcomes[0].record.result.height == 8  # type: ignore[attr-defined]


def test_a_record_alone_is_enough_for_what_needs_no_artefact() -> None:
    run()
    _, made = run(ASKED[1:], outputs="elsewhere")
    assert made == []


def test_a_stage_asked_for_without_its_artefact_is_made_again_only_where_another_needs_it() -> None:
    first, _ = run()
    bare = [Wanted(PLANT, artefact=False), ASKED[1]]
    outcomes, made = run(bare, outputs="elsewhere")
    assert made == []
    assert [o.record for o in outcomes] == [o.record for o in first]
    _, made = run([Wanted(PLANT, artefact=False), Wanted(Reap(plant=PLANT, parts=2))], outputs="elsewhere")
    assert made == ["sow", "reap"]


def test_a_run_holds_one_result_of_a_stage_even_if_it_is_restored_midway() -> None:
    """The harvest on record is of the recorded plant; a further one needs the plant itself, which grows differently."""
    run()
    SOIL.write_text("5")
    more = Reap(plant=PLANT, parts=2)
    outcomes, made = run([Wanted(PLANT, artefact=False), ASKED[1], Wanted(more)], outputs="elsewhere")
    assert made == ["sow", "reap", "reap"]
    grown = outcomes[0].record
    assert grown.result.height == 8  # type: ignore[attr-defined]
    assert [outcome.record.needs for outcome in outcomes[1:]] == [{grown.id: grown.digest}] * 2


def test_what_is_made_from_a_restored_artefact_is_marked() -> None:
    run(ASKED[:1])
    SOIL.write_text("5")
    outcomes, made = run(ASKED[1:], outputs="elsewhere")
    assert made == ["sow", "reap"]
    assert status(outcomes[0]) is Status.RESTORED
    assert len(tracked()) == 2, "the harvest is new and tracked, the plant's record is as it was"


def test_a_forced_stage_replaces_its_record_and_what_was_made_of_it_is_stale() -> None:
    first, _ = run()
    SOIL.write_text("5")
    forced, made = run(ASKED[:1], force=True)
    assert made == ["sow"]
    assert forced[0].record.replaced == (first[0].record.digest,)
    assert status(first[1]) is Status.STALE
    store = engine(Path("outputs"), Path("results")).store
    assert [stage.kind for stage in pending(store, [ASKED[1].stage], bare=[ASKED[1].stage.id])] == ["reap"]

    redone, made = run()
    assert made == ["reap"]
    assert redone[1].record.result.weights == [80, 81, 82]  # type: ignore[attr-defined]
    assert redone[1].recorded is None, "a stale record gives way to the new one"
    assert redone[1].record.replaced == (first[1].record.digest,)
    assert status(redone[1]) is Status.GOOD
    assert run()[1] == []


def test_staleness_reaches_what_stands_on_what_is_stale() -> None:
    child = Sow(seed=1, after=PLANT)
    asked = [Wanted(Reap(plant=child))]
    outcomes, made = run(asked)
    assert made == ["sow", "sow", "reap"]
    SOIL.write_text("5")
    run(ASKED[:1], force=True)
    assert status(outcomes[0]) is Status.STALE
    again, made = run(asked)
    assert made == ["sow", "reap"], "the child and its harvest, but not the parent"
    assert status(again[0]) is Status.GOOD


def test_shared_stages_are_not_forced() -> None:
    run()
    _, made = run([Wanted(PLANT, shared=True), ASKED[1]], force=True)
    assert made == ["reap"]


def test_forcing_with_the_same_outcome_replaces_nothing() -> None:
    run()
    forced, made = run(force=True)
    assert made == ["sow", "reap"]
    assert [outcome.record.replaced for outcome in forced] == [(), ()]
    assert status(forced[1]) is Status.GOOD


def test_a_record_names_every_result_that_it_replaced() -> None:
    records = []
    for soil in ("0", "5", "6", "6"):
        SOIL.write_text(soil)
        forced, _ = run(ASKED[:1], force=True)
        records.append(forced[0].record)
    first, second, third, again = records
    assert second.replaced == (first.digest,)
    assert third.replaced == again.replaced == (first.digest, second.digest)


def start(*words: str) -> subprocess.Popen[str]:
    """The toys' command in the garden, with its soil."""
    command = [sys.executable, "-m", "tests.stages.toys", "outputs", "results", *words]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_killed_stage_goes_on_behind_its_parts() -> None:
    process = start("slow")
    assert process.stdout is not None
    for line in process.stdout:
        if line == "weighing 2\n":
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(list(Path("outputs/parts").iterdir())) == 1
    again = start()
    printed, _ = again.communicate(timeout=60)
    assert printed.split() == ["weighing", "2"], "two parts were there"
    assert list(Path("outputs/parts").iterdir()) == []
    assert run()[1] == []


def test_parts_of_other_code_are_not_continued(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(ASKED[:1])
    whole = Parts.keep

    def killed(parts: Parts, kept: dict[str, int]) -> None:
        whole(parts, kept)
        raise KeyboardInterrupt

    for code, weighed in (("first", [0]), ("first", [1]), ("fixed", [0])):
        monkeypatch.setattr("hiplora.stages.make.code", lambda code=code: code)
        monkeypatch.setattr(Parts, "keep", killed)
        with pytest.raises(KeyboardInterrupt):
            run()
        assert [int(line.split()[1]) for line in capsys.readouterr().out.splitlines()] == weighed


def test_a_record_names_the_commit_that_the_engine_started_from(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"status": "", "rev-parse": "before"}
    done = partial(subprocess.CompletedProcess, returncode=0)
    monkeypatch.setattr(subprocess, "run", lambda words, **settings: done(words, stdout=answers[words[3]]))
    environment.commit.cache_clear()
    made = engine(Path("outputs"), Path("results"))
    answers["rev-parse"] = "after"
    assert made.run(ASKED)[1].record.environment["git_commit"] == "before"
    environment.commit.cache_clear()


def test_two_processes_make_a_stage_once() -> None:
    outputs = [process.communicate(timeout=60) for process in [start("slow", "together"), start("slow", "together")]]
    assert sorted(len(printed.splitlines()) for printed, _ in outputs) == [0, 3]
    assert any("Another process is working on" in errors for _, errors in outputs)


def test_two_processes_share_what_is_asked_of_both() -> None:
    processes = [start("slow", "grid", "together"), start("slow", "grid", "together")]
    printed = [process.communicate(timeout=120)[1] for process in processes]
    lines = [[line for line in errors.splitlines() if line.startswith("[")] for errors in printed]
    assert [process.returncode for process in processes] == [0, 0]
    assert sum(map(len, lines)) == len({line.split("] ")[1] for each in lines for line in each}) == 16, "each once"
    assert min(map(len, lines)) >= 4, "each takes what the other is not making"
    assert lines[0][-1].split("/")[1].startswith("16]"), "what the other made counts as done"


def test_two_processes_that_force_the_same_end_with_one_record() -> None:
    before, _ = run()
    SOIL.write_text("5")
    processes = [start("force", "slow", "together"), start("force", "slow", "together")]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert len(tracked()) == 2
    after, made = run()
    assert made == []
    grown, weighed = (outcome.record for outcome in after)
    assert (grown.result.height, weighed.result.weights) == (8, [80, 81, 82])  # type: ignore[attr-defined]
    assert [record.replaced for record in (grown, weighed)] == [(outcome.record.digest,) for outcome in before]
    assert status(after[1]) is Status.GOOD


def test_no_lock_is_held_while_another_is_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs that need each other's need, in opposite orders, must not wait for each other for ever."""
    one, other = Sow(seed=1), Sow(seed=2)
    first = [Wanted(Reap(plant=one)), Wanted(Reap(plant=other))]
    done: list[tuple[list[Outcome], list[str]]] = []
    threads = [
        threading.Thread(target=lambda asked: done.append(run(asked)), args=(asked,), daemon=True)
        for asked in (first, first[::-1])
    ]
    monkeypatch.setattr("tests.stages.toys.SLOW", 0.05)
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 30
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    assert len(done) == 2, "neither waits still, nor ended in an error"


def test_everything_is_checked_before_anything_is_made() -> None:
    with pytest.raises(UserError, match="does not grow"):
        run([Wanted(PLANT), Wanted(Reap(plant=Sow(seed=-1)))])
    assert tracked() == {}


def test_a_broken_record_is_named_and_made_again() -> None:
    run()
    path = next(Path("results").rglob("harvest*.json"))
    for content in ("{", "{}", '{"schema": 1}', '{"schema": 2}', '{"schema": 2, "kind": "reap", "id": "x"}'):
        path.write_text(content)
        store = engine(Path("outputs"), Path("results")).store
        assert len(list(store.tracked)) == 1
        assert len(store.tracked.broken) == 1
        assert path.name in store.tracked.broken[0]
    assert run()[1] == ["reap"]
    assert json.loads(path.read_text())["kind"] == "reap"


def test_a_generator_gets_the_records_of_what_it_asked_for() -> None:
    seen = []

    def grid():
        (first,) = yield Wanted(PLANT)
        seen.append(first.result.height)
        two = yield [Wanted(Sow(seed=height)) for height in (first.result.height, 7)]
        seen.extend(record.result.height for record in two)

    outcomes, made = run(grid())
    assert seen == [3, 3, 7]
    assert [outcome.stage.seed for outcome in outcomes] == [3, 3, 7]  # type: ignore[attr-defined]
    assert made == ["sow", "sow"]


def test_how_much_depends_on_results_is_said_to_be_a_lower_bound(capsys: pytest.CaptureFixture[str]) -> None:
    def grid():
        (first,) = yield [Wanted(PLANT)]
        yield [Wanted(Sow(seed=first.result.height + 1))]

    run(grid())
    lines = [line.split()[0] for line in capsys.readouterr().err.splitlines() if line.startswith("[")]
    assert lines == ["[1/1+]", "[2/2+]"]


def test_a_record_names_the_selection_that_was_there() -> None:
    first, _ = run([Wanted(Sow(seed=1))])
    Path("results/toys/selection.json").write_text("{}")
    second, _ = run([Wanted(Sow(seed=2))])
    assert "selection" not in first[0].record.environment
    assert len(second[0].record.environment["selection"]) == 12
    assert Sow(seed=1).id == first[0].record.id, "it is no part of what was asked"


def test_progress_counts_what_will_be_made(capsys: pytest.CaptureFixture[str]) -> None:
    run([Wanted(Reap(plant=Sow(seed=1))), Wanted(Reap(plant=Sow(seed=2)))])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("[")]
    assert [line.split()[0] for line in lines] == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]
