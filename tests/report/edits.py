"""Results of edits that follow from a few counts: twelve facts, four of each category, and forty unrelated probes."""

from __future__ import annotations

from hiplora.stages.results import Edited, EditedBatch

CATEGORIES = ("entity", "relation", "temporal")
PER_CATEGORY, PER_BENCHMARK = 4, 20
SHIFT = {"entity": 0.0, "relation": -1.0, "temporal": -2.0}  # of every log-probability


def first(count: int, of: int) -> str:
    """The first ones, and no other."""
    return "1" * count + "0" * (of - count)


def edited(*, generated: int, preferred: int, lost: int, gained: int, front_lost: int, log_p_new: float) -> Edited:
    """Counts are per category, or of the probes of either benchmark, of which the backbone answers the first ten right.

    An adapter loses the first ``lost`` of these and gains the next ``gained`` that it lacked.
    """
    items = PER_CATEGORY * len(CATEGORIES)
    right = dict.fromkeys(("mmlu", "scienceqa"), "0" * lost + "1" * (10 - lost + gained) + "0" * (10 - gained))
    front = {name: "0" * front_lost + first(10 - front_lost, PER_BENCHMARK - front_lost) for name in right}
    means = {
        group: {
            "paraphrase_success": preferred / 8, "paraphrase_generated": generated / 8, "paraphrase_preferred": 0.25,
            "neighbourhood": 0.75, "neighbourhood_begins": 0.5, "log_p_new": log_p_new + shift, "log_p_old": -2.0,
            "tokens_new": 2.0, "tokens_old": 1.5, "probe_log_p_gold": -1.5, "probe_log_p_new": -6.0 + shift,
        }
        for group, shift in {"all": -1.0, **SHIFT}.items()
    }  # fmt: skip
    batch = EditedBatch(
        categories={
            name: "0" * PER_CATEGORY * place + first(PER_CATEGORY, items - PER_CATEGORY * place)
            for place, name in enumerate(CATEGORIES)
        },
        outcomes={
            "generated": first(generated, PER_CATEGORY) * 3, "begins": first(generated, PER_CATEGORY) * 3,
            "preferred": first(preferred, PER_CATEGORY) * 3, "believed": "0110" * 3,
        },
        front=front,
        means=means,
    )  # fmt: skip
    return Edited(batches=[batch], right=right, seconds=60.0)


BASE = edited(generated=0, preferred=1, lost=0, gained=0, front_lost=0, log_p_new=-5.0)


def of_method(method: str, seed: str) -> Edited | None:
    """LoRA loses a probe more with every seed; HiP-LoRA loses none and lacks seed 2024, the others lack everything."""
    place = ("42", "100", "2024").index(seed)
    if method == "lora":
        return edited(generated=2, preferred=3, lost=2 + place, gained=1, front_lost=4, log_p_new=-0.5)
    if method == "hip" and seed != "2024":
        return edited(generated=3, preferred=2, lost=0, gained=place, front_lost=1, log_p_new=-0.25)
    return None
