"""What makes PEFT know the method, each in a fresh process: nothing that is imported, one call, or a configuration."""

from __future__ import annotations

import textwrap
from pathlib import Path

from tests.commands import scripted
from tests.tuner.helpers import make_llama, trained

LIBRARY = ("hiplora", "hiplora.updates", "hiplora.spectral", "hiplora.tuner", "hiplora.adapters", "hiplora.merging")


def fresh(script: str) -> str:
    """What a script prints in a process of its own, with PEFT's three dictionaries at hand as ``known()``."""
    head = """
        import peft.mapping
        MAPPINGS = [vars(peft.mapping)[f"PEFT_TYPE_TO_{kind}_MAPPING"] for kind in ("CONFIG", "TUNER", "PREFIX")]
        def known():
            return ["HIPLORA" in mapping for mapping in MAPPINGS]
    """
    code = textwrap.dedent(head) + textwrap.dedent(script)
    done = scripted(code)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_library_tells_peft_nothing() -> None:
    fresh(f"""
        import pkgutil
        from importlib import import_module
        before = [dict(mapping) for mapping in MAPPINGS]
        for name in {LIBRARY!r}:
            package = import_module(name)
            for exported in getattr(package, "__all__", ()):
                getattr(package, exported)
            if name != "hiplora":
                for module in pkgutil.iter_modules(getattr(package, "__path__", ())):
                    import_module(f"{{name}}.{{module.name}}")
        from hiplora import HipLoraConfig, export_lora, register
        assert [dict(mapping) for mapping in MAPPINGS] == before
    """)


def test_to_register_twice_is_to_register_once() -> None:
    fresh("""
        import hiplora
        sizes = [len(mapping) for mapping in MAPPINGS]
        hiplora.register()
        once = [dict(mapping) for mapping in MAPPINGS]
        assert known() == [True, True, True]
        assert [len(mapping) for mapping in MAPPINGS] == [size + 1 for size in sizes]
        hiplora.register()
        assert [dict(mapping) for mapping in MAPPINGS] == once
        assert hiplora.register is hiplora.tuner.register
    """)


def test_a_configuration_registers_also_where_it_is_read(tmp_path: Path) -> None:
    trained(make_llama()).save_pretrained(tmp_path / "adapter")
    fresh(f"""
        from hiplora import HipLoraConfig
        for make in (HipLoraConfig, lambda: HipLoraConfig.from_pretrained({str(tmp_path / "adapter")!r})):
            for mapping in MAPPINGS:
                mapping.pop("HIPLORA", None)
            make()
            assert known() == [True, True, True]
    """)


def test_a_fresh_process_loads_an_adapter_after_one_call(tmp_path: Path) -> None:
    make_llama().save_pretrained(tmp_path / "backbone")
    trained(make_llama()).save_pretrained(tmp_path / "adapter")
    printed = fresh(f"""
        import hiplora
        from peft import PeftModel
        from transformers import AutoModelForCausalLM
        hiplora.register()
        backbone = AutoModelForCausalLM.from_pretrained({str(tmp_path / "backbone")!r})
        model = PeftModel.from_pretrained(backbone, {str(tmp_path / "adapter")!r})
        print(type(model.base_model).__name__)
    """)
    assert printed.strip() == "HipLoraModel"
