"""A row that is named after a principal channel is marked where the channel holds next to nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hiplora.methods import METHODS, method_class
from hiplora.report.marks import STILL, channel_stands_still
from hiplora.report.slots import Slot
from hiplora.report.table import markdown
from hiplora.report.tables.table1 import build
from hiplora.stages.record import Record
from tests.report.evidence import fixture_evidence, labelled

WITH_CHANNEL = [name for name in METHODS if method_class(name).channel]


def trained(method: str, measures: dict[str, float]) -> Record:
    record = labelled(lambda label: True, "train", method="lora", task="mmlu", seed=42)[0]
    asked = {**record.asked, "method": {"name": method}}
    return record.model_copy(update={"asked": asked, "result": record.result.model_copy(update={"measures": measures})})


@pytest.mark.parametrize("name", METHODS)
def test_only_a_channel_that_is_named_can_stand_still(name: str) -> None:
    assert channel_stands_still(trained(name, {"channel_share": 0.009})) is (name in WITH_CHANNEL)
    assert not channel_stands_still(trained(name, {"channel_share": 0.011}))
    assert not channel_stands_still(trained(name, {})), "records from before do not say"


def test_a_method_that_is_not_here_has_no_channel() -> None:
    assert not channel_stands_still(trained("another", {"channel_share": 0.009}))


def test_its_cells_are_marked_and_a_note_says_why() -> None:
    evidence = fixture_evidence("table1")
    assert WITH_CHANNEL

    def marked(slot: Slot) -> Slot:
        still = slot.run.point["method"] == "hip"
        return replace(
            slot, entries=tuple(replace(e, marks=STILL * (still and e.role == "adapter")) for e in slot.entries)
        )

    text = markdown(build(replace(evidence, slots=[marked(slot) for slot in evidence.slots])))
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    assert STILL in rows["HiP-LoRA"]
    assert STILL not in rows["LoRA"]
    assert f"- {STILL} from an adapter whose principal channel holds under 1%" in text
    assert STILL not in markdown(build(evidence))
