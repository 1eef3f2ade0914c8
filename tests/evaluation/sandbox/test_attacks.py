"""The attack suite: every program against every backend, and against none to show that the attack is one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from string import Template

import pytest

from hiplora.evaluation.sandbox import Backend, Check, Verdict, choose_backend, run_many
from tests.evaluation.sandbox.attacks import EXHAUSTING, NEVER_ENDING, Attack
from tests.evaluation.sandbox.forgeries import FORGERIES
from tests.evaluation.sandbox.reaching import REACHING_OUT

ATTACKS = {attack.name: attack for attack in (*NEVER_ENDING, *EXHAUSTING, *REACHING_OUT, *FORGERIES)}
OUTSIDE = {"victim": "precious", "doomed": "precious"}
SECRET = "the-parent's-secret"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("outside"))


def fill(folder: Path) -> Path:
    for name, text in OUTSIDE.items():
        (folder / name).write_text(text)
    return folder


def as_check(attack: Attack, folder: Path) -> Check:
    home = Path.home() if Path.home().is_dir() else folder
    code = Template(attack.code).safe_substitute(OUTSIDE=folder, PARENT=os.getpid(), HOME=home)
    # What may sit out its time gets little of it; what must end by itself gets plenty, on a busy machine.
    timeout = 0.5 if "timeout" in attack.expected else 20.0
    name = "solve" if attack in FORGERIES else "attack"
    return Check(prompt="", completion=code, test=attack.test, entry_point=name, timeout=timeout)


@pytest.fixture(scope="module")
def verdicts(backend: Backend, folder: Path) -> dict[str, Verdict]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HIPLORA_TEST_SECRET", SECRET)
        found = run_many([as_check(attack, folder) for attack in ATTACKS.values()], backend, workers=6)
    return dict(zip(ATTACKS, found, strict=True))


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_ends_as_expected(verdicts: dict[str, Verdict], name: str) -> None:
    verdict, attack = verdicts[name], ATTACKS[name]
    assert not verdict.passed
    assert verdict.status in attack.expected, verdict
    assert attack.detail in verdict.detail
    assert SECRET not in verdict.detail


def test_nothing_outside_was_touched(verdicts: dict[str, Verdict], folder: Path) -> None:
    assert verdicts
    assert {path.name: path.read_text() for path in folder.iterdir()} == OUTSIDE
    assert not (Path(os.__file__).parent / "hiplora_was_here.py").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="the attacks are written for Linux")
def test_attacks_succeed_where_nothing_confines(tmp_path: Path) -> None:
    attacks = [attack for attack in ATTACKS.values() if attack.works_unconfined]
    # Each on a folder of its own: one deletes what another reads.
    folders = [tmp_path / attack.name for attack in attacks]
    for folder in folders:
        folder.mkdir()
    checks = [as_check(attack, fill(folder)) for attack, folder in zip(attacks, folders, strict=True)]
    found = run_many(checks, choose_backend("unsafe"))
    assert {a.name: v for a, v in zip(attacks, found, strict=True) if not v.passed} == {}
    assert len(attacks) >= 25
