"""A PEFT that changed a hook is refused; the sentence names the hook and the range that pyproject.toml states."""

from __future__ import annotations

import tomllib
from pathlib import Path

import peft
import pytest

from hiplora.errors import UserError
from hiplora.tuner import hooks
from hiplora.tuner.layer import HipLinear, HipVariant
from hiplora.tuner.model import HipLoraModel
from tests.commands import scripted

RANGE = f"HiP-LoRA was tested with PEFT {' to '.join(hooks.TESTED)}: pip install '{hooks.REQUIREMENT}'."


def test_the_range_is_the_one_of_pyproject():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert hooks.REQUIREMENT in project["dependencies"]


def test_every_overridden_hook_is_checked():
    ours = ((HipLoraModel, hooks.LoraModel), (HipLinear, hooks.LoraLinear), (HipVariant, hooks.LoraVariant))
    for own, theirs in ours:
        checked = {*hooks.ARGUMENTS[theirs], *hooks.ATTRIBUTES.get(theirs, ())}
        overridden = {name for name in vars(own) if hasattr(theirs, name) and not name.startswith(("__", "_abc"))}
        assert overridden - checked <= {"add_weighted_adapter"}, "users call it, PEFT does not"


def test_a_hook_that_is_gone_is_refused(monkeypatch):
    hooks.check()
    for owner in (hooks.LoraModel, peft.tuners.tuners_utils.BaseTuner):
        monkeypatch.delattr(owner, "_remap_adapter_state_dict_for_load")
    with pytest.raises(UserError) as refused:
        hooks.check()
    what = "peft.tuners.lora.model.LoraModel._remap_adapter_state_dict_for_load is missing"
    assert str(refused.value) == f"PEFT {peft.__version__} is installed, where {what}; {RANGE}"


def test_a_hook_that_takes_other_arguments_is_refused(monkeypatch):
    monkeypatch.setattr(hooks.LoraLinear, "update_layer", lambda self, adapter_name, config, **kwargs: None)
    with pytest.raises(UserError, match=r"lora\.layer\.Linear\.update_layer takes \(self, adapter_name, config\); "):
        hooks.check()


@pytest.mark.parametrize(
    ("imported", "status", "start"),
    [
        ("from hiplora import HipLoraConfig", 1, "hiplora.errors.UserError: "),
        ("from hiplora.tuner.export import main; exit(main(['adapter', 'out']))", 2, "error: "),
        ("from hiplora.merging.__main__ import main; exit(main(['a', 'b', '--out', 'c']))", 2, "error: "),
    ],
)
def test_the_import_is_refused(imported, status, start):
    script = f"import peft.mapping\ndel peft.mapping.PEFT_TYPE_TO_PREFIX_MAPPING\n{imported}"
    done = scripted(script)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == status
    assert last.startswith(
        f"{start}PEFT {peft.__version__} is installed, where an internal that HiP-LoRA needs is missing ("
    )
    assert "PEFT_TYPE_TO_PREFIX_MAPPING" in last
    assert last.endswith(RANGE)
