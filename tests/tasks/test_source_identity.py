"""What identifies data: a digest for each split that is read, taken once and without heavy imports."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from hiplora.tasks.source import Data, Source, looked_up_once
from tests.tasks.files import local, problems, write


def test_identity_loads_neither_torch_nor_datasets(tmp_path):
    write(tmp_path, "gsm8k/train", problems(3))
    code = (
        "import sys; from hiplora.tasks.source import Data, Source\n"
        f"Source(Data(name='local', root={str(tmp_path)!r}, revisions={{}})).reads(('gsm8k', 'train'))\n"
        "hub = Source(Data(name='hub', root=None, revisions={'gsm8k': 40 * 'a'}))\n"
        "hub.reads(('gsm8k', 'train'))\n"
        "assert not {'torch', 'datasets', 'lm_eval'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_is_read_is_named_split_by_split(tmp_path):
    train = write(tmp_path, "gsm8k/train", problems(30))
    test = write(tmp_path, "gsm8k/test", problems(3))
    dev = write(tmp_path, "mmlu/dev", [{"question": "q", "subject": "s", "choices": ["a", "b"], "answer": 0}])
    splits = [("gsm8k", "train"), ("gsm8k", "validation"), ("gsm8k", "test"), ("mmlu", "validation")]
    before = local(tmp_path).reads(*splits)
    assert before == {
        "gsm8k/train without its held-out 5 %": sha256(train),
        "gsm8k/train's held-out 5 %": sha256(train),
        "gsm8k/test": sha256(test),
        "mmlu/dev": sha256(dev),
    }
    validation = write(tmp_path, "gsm8k/validation", problems(3))
    assert local(tmp_path).reads(*splits[:2]) == {
        "gsm8k/train": sha256(train),
        "gsm8k/validation": sha256(validation),
    }
    assert local(tmp_path).reads(("gsm8k", "test")) == {"gsm8k/test": sha256(test)}, "other splits do not enter"
    write(tmp_path, "gsm8k/train", problems(31))
    assert local(tmp_path).reads(("gsm8k", "train")) == {"gsm8k/train": sha256(train)}, "and the change is seen"


def test_borrowed_text_is_named_as_such(tmp_path, monkeypatch):
    monkeypatch.setenv("HIPLORA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("hiplora.mini.write", lambda folder: write(folder, "text/test", [{"text": "mini"}]))
    borrowed = local(tmp_path).reads(("text", "test"))
    mini = Source(Data(name="mini", root=None, revisions={})).reads(("text", "test"))
    assert borrowed == {"text/test of the mini data": mini["text/test"]}
    own = write(tmp_path, "text/test", [{"text": "own"}])
    assert local(tmp_path).reads(("text", "test")) == {"text/test": sha256(own)}


def test_a_file_is_hashed_and_read_once(tmp_path, monkeypatch):
    write(tmp_path, "gsm8k/train", problems(100))
    first = local(tmp_path)
    first.reads(("gsm8k", "train"))
    first.check(("gsm8k", "train"))
    monkeypatch.setattr("hiplora.tasks.files.hashlib.file_digest", None)
    monkeypatch.setattr("hiplora.tasks.loading.read_jsonl", None)
    again = local(tmp_path)
    assert len(again.reads(("gsm8k", "train"), ("gsm8k", "validation"))) == 2
    assert len(again.load("gsm8k", "train")) + len(again.load("gsm8k", "validation")) == 100


def test_a_table_looks_at_a_file_once_and_what_makes_stages_each_time(tmp_path):
    write(tmp_path, "gsm8k/train", problems(3))
    wanted = ("gsm8k", "validation")
    before = local(tmp_path).reads(wanted)
    with looked_up_once():
        assert local(tmp_path).reads(wanted) == before
        write(tmp_path, "gsm8k/validation", problems(4))
        assert local(tmp_path).reads(wanted) == before
        assert Source(Data(name="mini", root=None, revisions={})).reads(wanted) != before
    assert local(tmp_path).reads(wanted).keys() == {"gsm8k/validation"} != before.keys()
