"""What identifies a result follows from how fields are declared, and from nothing else."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import pytest
from pydantic import Field

from hiplora.compose import compose
from hiplora.config import As, Bookkeeping, Neutral, Options, Place, digest
from hiplora.errors import UserError
from hiplora.merging import OPERATORS
from hiplora.methods import METHODS
from hiplora.pipelines.base import frontier, scores, training
from hiplora.stages.frontier import Frontier
from hiplora.stages.score import Score
from hiplora.stages.sources import Adapted, Backbone
from hiplora.stages.train import Train
from hiplora.tasks import TASKS
from tests.tiny import NEEDS


class Base(Options):
    """A family of options."""

    group: ClassVar[str] = "toy"
    size: Annotated[int, Field(ge=1, examples=[3])] = 1


class Special(Base):
    """One with a field of its own, which a plain dump of a field declared as Base would drop."""

    depth: int = 2


class Whole(Options):
    """One of each marker."""

    inner: Base
    names: Annotated[tuple[str, ...], Field(strict=False), As(sorted)] = ()
    where: Annotated[str, Place] = "here"
    log: Annotated[int, Bookkeeping] = 1
    later: Annotated[int, Neutral(0)] = 0


def identity(**fields) -> str:
    return digest(Whole(**{"inner": Base(), **fields}).identity())


def test_fields_enter_by_their_markers() -> None:
    plain = identity()
    assert identity(where="there", log=9) == plain
    assert identity(names=["b", "a"]) == identity(names=["a", "b"]) != plain
    assert identity(later=0) == plain != identity(later=1)
    assert "later" not in Whole(inner=Base()).identity(), "a new field orphans no record"
    assert identity(inner=Base(size=2)) != plain


def test_a_subclass_enters_with_its_own_fields() -> None:
    assert identity(inner=Special()) != identity(inner=Base())
    assert identity(inner=Special(depth=3)) != identity(inner=Special())


def test_a_version_of_its_owner_enters(monkeypatch: pytest.MonkeyPatch) -> None:
    before = identity()
    monkeypatch.setattr(Base, "version", 2)
    assert identity() != before


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"size": 0}, "toy.size=0 must be at least 1, e.g. 3."),
        ({"size": 1.5}, "toy.size=1.5 must be a whole number, e.g. 3."),
        ({"size": "1"}, "toy.size=1 must be a whole number, e.g. 3."),
        ({"size": None}, "toy.size=None must be a whole number, e.g. 3."),
        ({"sise": 1}, "toy.sise is not a field; there are toy.size."),
    ],
)
def test_mistakes_are_one_sentence(fields, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        Base(**fields)
    assert str(caught.value) == sentence


def test_a_copy_is_checked_again() -> None:
    with pytest.raises(UserError, match="must be at least 1"):
        Base().but(size=0)
    assert Special().but(size=4) == Special(size=4)


WRITING = (
    "evaluation.code_samples=3", "evaluation.code_temperature=0.5", "evaluation.code_top_p=0.5",
    "evaluation.code_max_new_tokens=7", "evaluation.code_timeout_seconds=1", "evaluation.code_execution=off",
    "evaluation.gsm8k_max_new_tokens=7", "evaluation.seed=7",
)  # fmt: skip
SIZES: dict[str, Any] = {"scales": (1.0,), "own_items": 4, "other_items": 4, "text_tokens": 64}


def test_how_text_is_written_identifies_full_scores_alone() -> None:
    def ids(*words: str) -> list[str]:
        config = compose(["method=lora", *words])
        base = Backbone(model=config.model)
        only = config.but(evaluation=config.evaluation.but(likelihood_only=True))
        reading = [frontier(config, base, **SIZES), frontier(config, training(config), **SIZES), scores(only, base)]
        return [stage.id for stage in [*reading, scores(config, base)]]

    plain = ids()
    for word in WRITING:
        found = ids(word)
        assert (found[:3], found[3] != plain[3]) == (plain[:3], True), word
    assert ids("evaluation.likelihood_only=true")[:3] == plain[:3]
    for word in ("evaluation.limit=3", "evaluation.scoring=letter", "task.target=solution"):
        assert not set(ids(word)) & set(plain), word


FIXED = (
    "method=lora", "method.r=16", "method.alpha=32", "method.dropout=0.0", "task=gsm8k", "seed=42", "model=smollm2",
    "model.dtype=bfloat16", "model.target_modules=[q_proj,v_proj]", "training.steps=60", "training.rows_per_step=2",
    "training.micro_batch_rows=2", "training.row_tokens=256", "training.lr=1e-3", "training.beta1=0.9",
    "training.beta2=0.999", "training.eps=1e-8", "training.weight_decay=0.01", "training.warmup_ratio=0.03",
    "training.max_grad_norm=1.0", "training.snapshots=[0.5]", "training.share_prefixes=true", "svd.recipe=auto",
    "svd.k_max=64", "svd.seed=0", "svd.oversampling=8", "svd.power_iterations=2", "svd.tolerance=1e-3",
    "svd.exact_up_to=2048", "evaluation.splits=test", "evaluation.limit=null", "evaluation.text_tokens=8192",
    "evaluation.scoring=cloze", *WRITING,
)  # fmt: skip


def test_what_is_asked_for_keeps_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the code gives the same options another id, every record made so far is orphaned.

    If a new version is meant to, its ids belong here; a new field is Neutral at what older results correspond to.
    """
    for kind in (Train, Score, Frontier):
        monkeypatch.setattr(kind, "reads", lambda stage: {"a file": "its digest"})
    config = compose(FIXED)
    train = training(config)
    stages = [train, scores(config, Backbone(model=config.model)), scores(config, Adapted(train=train))]
    ids = [stage.id for stage in (*stages, frontier(config, train, **SIZES))]
    assert ids == ["458c5b3ee420", "7e7dad817242", "33cb95950b98", "cfba6cbf075f"]


def all_ids() -> dict[str, str]:
    """An identity of every option that a registry knows, as conf/ has it."""
    found = {}
    for name in METHODS:
        found[f"method={name}"] = digest(compose([f"method={name}"]).method.identity())
    for name in OPERATORS:
        found[f"merge={name}"] = digest(compose([f"merge={name}"]).merge.identity())
    for name in TASKS:
        found[f"task={name}"] = digest(compose([f"task={name}", *NEEDS.get(f"task={name}", [])]).task.identity())
    return found


def test_no_two_options_of_a_group_are_one() -> None:
    found = all_ids()
    assert len(set(found.values())) == len(found)


def test_what_changes_no_number_changes_no_id() -> None:
    def ids(*words: str) -> list[str]:
        return [wanted.stage.id for wanted in compose(["method=lora", *words]).stages()]  # type: ignore[union-attr]

    plain = ids()
    for words in (
        ["training.log_every=1", "training.checkpoint_every=1", "training.gradient_checkpointing=true"],
        ["evaluation.batch_tokens=64", "logging=wandb", "save_basis=true", "force=true"],
        ["outputs_dir=elsewhere", "results_dir=there", "model.name=renamed"],
        ["model.target_modules=[v_proj,k_proj,q_proj,o_proj]", "evaluation.code_execution=landlock"],
        ["svd.k_max=32", "merge=ties", "merging.sizes=[2]"],  # LoRA has no SVD, and a single run merges nothing
    ):
        assert ids(*words) == plain, words
    train, base, scores = plain
    assert [ids("training.share_prefixes=false")[0] != train, ids("training.lr=1e-4")[1] == base] == [True, True]
    changed = ids("evaluation.limit=3")
    assert (changed[0] == train, changed[1] != base, changed[2] != scores) == (True, True, True)
    assert ids("evaluation.code_execution=off")[1:] != [base, scores]
    assert ids("task.template=alpaca") == plain, "most benchmarks have no other form than Alpaca's"
