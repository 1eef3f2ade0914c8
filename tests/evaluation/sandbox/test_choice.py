"""Which backend is chosen, and the one sentence where none can be."""

from __future__ import annotations

import platform
import shutil
import sys
from dataclasses import replace

import pytest

from hiplora.errors import UserError
from hiplora.evaluation.sandbox import Backend, bubblewrap, choice, choose_backend
from hiplora.evaluation.sandbox.backend import Unavailable


def absent() -> list[Backend]:
    raise Unavailable("it is not here")


@pytest.mark.parametrize("name", ["off", "docker", ""])
def test_what_is_no_backend_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="bubblewrap, landlock and unsafe"):
        choose_backend(name)


def test_without_any_backend_the_sentence_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "CONFINING", {"bubblewrap": absent, "landlock": absent})
    with pytest.raises(UserError, match=r"bubblewrap: it is not here; landlock: .*code_execution=off") as caught:
        choose_backend("auto")
    assert "\n" not in str(caught.value)


def test_auto_takes_the_first_that_works(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "CONFINING", {"bubblewrap": absent, "landlock": lambda: [backend]})
    assert choose_backend("auto") is backend


def test_what_does_not_confine_is_not_chosen(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    open_door = replace(choose_backend("unsafe"), name="landlock")
    monkeypatch.setattr(choice, "CONFINING", {"landlock": lambda: [open_door]})
    with pytest.raises(UserError, match="open to sockets, signals, other programs, the file system"):
        choose_backend("auto")


def test_a_binary_that_fails_is_passed_over(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = bubblewrap.Bubblewrap(name="bubblewrap", binary=shutil.which("false") or "", has_keeper=True)
    monkeypatch.setattr(choice, "CONFINING", {"bubblewrap": lambda: [broken]})
    with pytest.raises(UserError, match="bubblewrap: it ended without a message"):
        choose_backend("auto")
    monkeypatch.setattr(choice, "CONFINING", {"bubblewrap": lambda: [broken, backend]})
    assert choose_backend("auto") is backend


def test_unsafe_is_chosen_by_its_name_alone_and_without_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_trial", lambda _: "it would not pass")
    assert choose_backend("unsafe").name == "unsafe"


def test_macos_gets_the_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    monkeypatch.setattr(bubblewrap, "_binaries", list)
    with pytest.raises(UserError, match=r"bubblewrap.*Landlock is a part of Linux.*code_execution=off"):
        choose_backend("auto")
    assert "AS" not in choose_backend("unsafe").limits(1.0)
