"""A file or folder that exists is complete; a crash, a full disk or a second process cannot change that."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hiplora import disk
from hiplora.errors import UserError


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_sentence_and_loses_nothing(tmp_path: Path, monkeypatch, code: int) -> None:
    path = tmp_path / "record.json"
    disk.write_json(path, {"kept": True})

    def full(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(disk.os, "fsync", full)
    with pytest.raises(UserError, match="free some space"):
        disk.write_json(path, {"kept": False})
    assert disk.read_json(path) == {"kept": True}
    assert [entry.name for entry in tmp_path.iterdir()] == ["record.json"]


def test_nan_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        disk.write_json(tmp_path / "x.json", {"loss": float("nan")})


def test_a_second_process_waits(tmp_path: Path) -> None:
    code = "import sys\nfrom pathlib import Path\nfrom hiplora import disk\n"
    code += "with disk.lock(Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"
    first = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "x")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert first.stdout is not None
    assert first.stdin is not None
    assert first.stdout.readline() == "in\n"
    second = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "x")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert second.stderr is not None
    assert "waiting" in second.stderr.readline()
    time.sleep(0.1)
    assert second.poll() is None
    first.stdin.close()
    assert second.communicate("")[0] == "in\n"
    first.wait()


LIMITED = """
import resource, signal, sys, torch
from pathlib import Path
from safetensors.torch import save_file
from hiplora.errors import UserError
from hiplora.disk import new_folder
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
try:
    with new_folder(Path(sys.argv[1]) / "adapter") as folder:
        save_file({"a": torch.zeros(1 << 20)}, folder / "adapter_model.safetensors")
except UserError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="file sizes are limited in Linux's way")
def test_what_safetensors_says_of_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Cannot write" in done.stdout
    assert "exceeds the limit on file sizes" in done.stdout
    assert not list(tmp_path.iterdir())


def test_a_new_folder_appears_whole_and_readable(tmp_path: Path) -> None:
    target = tmp_path / "adapter"
    with disk.new_folder(target) as folder:
        (folder / "weights").write_text("old")
        (folder / "weights").chmod(0o600)
        assert not target.exists()
    assert (target / "weights").stat().st_mode & 0o777 == 0o644

    def half() -> None:
        with disk.new_folder(target) as folder:
            (folder / "weights").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
    assert (target / "weights").read_text() == "old"


KILLED = """
import os, signal, sys
from pathlib import Path
from hiplora import disk
target = Path(sys.argv[1])
with disk.lock(target), disk.new_folder(target) as folder:
    (folder / "weights").write_text("half")
    disk.tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")  # as a file that was being written
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_removed_by_the_next_that_holds_the_lock(tmp_path: Path) -> None:
    target, other = tmp_path / "model", tmp_path / ".models.abcdefgh"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(target)])
    assert killed.returncode == -signal.SIGKILL
    other.write_text("of another target")
    assert len(list(tmp_path.glob(".model.*"))) == 2
    with disk.lock(target):
        assert list(tmp_path.glob(".*")) == [other]


def test_without_the_lock_only_what_is_a_day_old_is_removed(tmp_path: Path) -> None:
    target, old, new = tmp_path / "record.json", tmp_path / ".record.json.abcdefgh", tmp_path / ".record.json.abcdefg1"
    for path in (old, new):
        path.write_text("half")
    os.utime(old, (time.time() - 2 * disk.A_DAY,) * 2)
    disk.write_json(target, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == [new.name, target.name]


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_one_sentence(tmp_path: Path, monkeypatch, code: int) -> None:
    def absent(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", absent)
    told = r"has no file locks \(flock\).*outputs_dir=….*HIPLORA_CACHE=…"
    with pytest.raises(UserError, match=told), disk.lock(tmp_path / "x"):
        pytest.fail("locked")


def test_a_sealed_folder_is_intact_until_anything_in_it_changes(tmp_path: Path) -> None:
    def sealed(name: str) -> Path:
        with disk.new_folder(tmp_path / name) as folder:
            (folder / "inner").mkdir()
            (folder / "inner/data").write_text("one")
            (folder / "weights").write_text("two")
            disk.seal(folder)
        return tmp_path / name

    assert disk.intact(sealed("whole"))
    assert not disk.intact(tmp_path / "absent")
    changes = {
        "flipped": lambda folder: (folder / "inner/data").write_text("onf"),
        "lost": lambda folder: (folder / "weights").unlink(),
        "more": lambda folder: (folder / "inner/more").write_text(""),
        "unsealed": lambda folder: (folder / disk.SEAL).unlink(),
        "broken seal": lambda folder: (folder / disk.SEAL).write_text("[]"),
    }
    for name, change in changes.items():
        folder = sealed(name)
        change(folder)
        assert not disk.intact(folder), name
