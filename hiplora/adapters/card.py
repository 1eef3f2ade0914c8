"""Model cards: the README.md of an adapter's folder, or of folded weights, in the form of the Hugging Face Hub."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiplora.adapters.files import ADAPTER_CONFIG, HUB, read_config
from hiplora.disk import write_atomically

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

CARD = "README.md"
SET_ASIDE = "README.before.md"  # a changed card of an adapter that was trained anew
LICENCE = "# license: yours to choose before you publish this; https://huggingface.co/docs/hub/repositories-licenses"
OURS = "HIPLORA"  # the peft_type of a HiP-LoRA adapter
UNNAMED = "BACKBONE"  # placeholder in the card's code for a backbone that has no name on the Hub
NO_BASE = "# base_model: yours to add, the backbone's name on the Hub (owner/name), which is not known here"
BASE = re.compile(r"^base_model: (\S+)$", re.MULTILINE)
MARK = "\n<!-- Written by hiplora ({}); once changed by hand, this file is not written again. -->\n"
MARKED = re.compile(r"\n<!-- Written by hiplora \(([0-9a-f]{12})\); [^\n]* -->\n\Z")
LOADING = "## How to load it"
UNSCORED = " It has not been scored."
TITLE = re.compile(r"^# (.+)$", re.MULTILINE)
SCORES = re.compile(r"## Scores\n.*?\n(?=## )", re.DOTALL)  # a card's section with scores is never its last
FOLDED = """from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("FOLDER")"""
_IMPORTS = """from peft import PeftModel
from transformers import AutoModelForCausalLM
"""
_LOADED = """backbone = AutoModelForCausalLM.from_pretrained("{base}")
model = PeftModel.from_pretrained(backbone, "{folder}")"""
STOCK = f"{_IMPORTS}\n{_LOADED}"
REGISTERED = f"import hiplora\n{_IMPORTS}\nhiplora.register()\n{_LOADED}"


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One score over ``n`` items with its 95 % interval over items; ``before`` is the backbone's score.

    ``dataset`` is what the Hub calls the data, and its name in words.
    """

    benchmark: str
    dataset: tuple[str, str]
    metric: str
    value: float
    interval: tuple[float, float] | None
    n: int
    before: float | None


@dataclass(frozen=True, kw_only=True)
class Card:
    """The content of a card. ``base``, the backbone's name on the Hub, replaces the adapter configuration's."""

    title: str
    about: str
    settings: Mapping[str, Any]
    base: str | None = None
    tags: Sequence[str] = ()
    scores: Sequence[Scored] = ()


def write_card(folder: Path, card: Card) -> None:
    """Write the card of a folder whose other files are complete; replaces a card that exists."""
    text = render(folder, card)
    write_atomically(folder / CARD, f"{text}{MARK.format(_digest(text))}".encode())


def update_card(folder: Path, card: Card) -> bool:
    """Write the card of a folder, unless the one that is there has been changed. Returns whether it was written."""
    if changed_card(folder) is not None:
        return False
    write_card(folder, card)
    return True


def add_scores(folder: Path, scores: Sequence[Scored]) -> bool:
    """Put scores into the card that an export or a merge has been given, instead of any that it has.

    Returns whether there are scores, and such a card that is unchanged since it was written here.
    """
    from huggingface_hub import ModelCard

    path = folder / CARD
    text = path.read_bytes().decode(errors="replace") if path.is_file() and scores else ""
    if not _unchanged(text):
        return False
    text = MARKED.sub("", text)
    _, head, body = text.split("---\n", 2)
    data: Any = ModelCard(text).data
    title = TITLE.search(body)
    data.eval_results, data.model_name = [_result(score) for score in scores], title[1] if title else folder.name
    comments = "\n".join(line for line in head.splitlines() if line.startswith("#"))
    body = SCORES.sub("", body).replace(UNSCORED, "").replace(LOADING, f"{_scores(scores)}\n\n{LOADING}", 1)
    text = f"---\n{data.to_yaml().rstrip()}\n{comments}\n---\n{body}"
    write_atomically(path, f"{text}{MARK.format(_digest(text))}".encode())
    return True


def changed_card(folder: Path) -> bytes | None:
    """The card of a folder, if there is one that is not as it was written here."""
    path = folder / CARD
    content = path.read_bytes() if path.is_file() else None
    return None if content is None or _unchanged(content.decode(errors="replace")) else content


def _unchanged(text: str) -> bool:
    """Whether a card is as it was written here, by the digest in its last line."""
    found = MARKED.search(text)
    return found is not None and found[1] == _digest(text[: found.start()])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def render(folder: Path, card: Card) -> str:
    """The text of a card: metadata in YAML, description, settings, scores, how to load it, licence."""
    config = read_config(folder) if (folder / ADAPTER_CONFIG).is_file() else {}
    given = card.base or config.get("base_model_name_or_path")
    named = hub_name(given)
    sections = [
        f"# {card.title}\n\n{card.about}",
        _table("Settings", ("Setting", "Value"), [(name, str(value)) for name, value in card.settings.items()]),
        _scores(card.scores),
        _loading(config, named or UNNAMED, folder=None if named or given is None else Path(given).name),
        "## Licence\n\nNot chosen yet: whoever publishes this adds `license:` above. The backbone's licence and that "
        "of the data may bind it.",
    ]
    comments = "\n".join([*([] if named else [NO_BASE]), LICENCE])
    return f"---\n{_metadata(card, config, named)}\n{comments}\n---\n\n" + "\n\n".join(filter(None, sections)) + "\n"


def base_in_card(folder: Path) -> str | None:
    """The backbone's name on the Hub according to the card of a folder; None without such a card."""
    path = folder / CARD
    head = path.read_text(encoding="utf-8", errors="replace").split("\n---\n")[0] if path.is_file() else ""
    found = BASE.search(head)
    return hub_name(found[1]) if found else None


def hub_name(base: str | None) -> str | None:
    """The name of a backbone on the Hub; None for a folder, because a card must not publish a local path."""
    return base if base is not None and HUB.fullmatch(base) and not Path(base).exists() else None


def _metadata(card: Card, config: Mapping[str, Any], named: str | None) -> str:
    """The fields that the Hub itself reads."""
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        base_model=named,
        library_name="peft" if config else "transformers",
        pipeline_tag="text-generation",
        model_name=card.title if card.scores else None,  # the Hub requires it with results, and only then
        tags=[*card.tags, *(["lora"] if config else [])],
        eval_results=[_result(score) for score in card.scores] or None,
    )
    return data.to_yaml().rstrip()


def _result(score: Scored) -> EvalResult:
    from huggingface_hub import EvalResult

    return EvalResult(
        task_type="text-generation",
        dataset_type=score.dataset[0],
        dataset_name=score.dataset[1],
        metric_type=score.metric,
        metric_value=round(score.value, 6),
    )


def _scores(scores: Sequence[Scored]) -> str:
    """The section with every score and its interval; "" without scores."""
    heading = ("Benchmark", "Metric", "Backbone", "With this adapter", "95 % interval", "n")
    rows = [
        (
            score.benchmark,
            score.metric,
            "" if score.before is None else f"{score.before:.3f}",
            f"{score.value:.3f}",
            "" if score.interval is None else f"[{score.interval[0]:.3f}, {score.interval[1]:.3f}]",
            str(score.n),
        )
        for score in scores
    ]
    return _table("Scores", heading, rows)


def _table(title: str, heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    lines = [heading, ["---"] * len(heading), *rows]
    return f"## {title}\n\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _loading(config: Mapping[str, Any], base: str, *, folder: str | None) -> str:
    """The section on loading the folder, with hiplora and without; ``folder`` names the backbone's, if it is local."""
    if not config:
        return f"{LOADING}\n\n{_code(FOLDED)}"
    where = "" if folder is None else f"`{UNNAMED}` stands for the folder of the backbone, here `{folder}`.\n\n"
    if config.get("peft_type") != OURS:
        stock = _code(STOCK, base=base, folder="FOLDER")
        return f"{LOADING}\n\n{where}A stock PEFT adapter, which needs no hiplora:\n\n{stock}"
    return (
        f"{LOADING}\n\n{where}With hiplora, which tells PEFT what HiP-LoRA is:\n\n"
        f"{_code(REGISTERED, base=base, folder='FOLDER')}\n\n"
        "Without hiplora, once `hiplora-export FOLDER PLAIN` has written the same update as a stock LoRA:\n\n"
        f"{_code(STOCK, base=base, folder='PLAIN')}"
    )


def _code(template: str, **words: str) -> str:
    return f"```python\n{template.format(**words)}\n```"
