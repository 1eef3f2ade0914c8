"""The ranges are stated once; the library and a configuration of runs name the option in their own way."""

from __future__ import annotations

from dataclasses import fields

import pytest
from peft import LoraConfig

from hiplora.errors import UserError
from hiplora.tuner import HipLoraConfig
from hiplora.tuner.options import RULES, check_options


def test_every_option_of_the_method_has_a_range() -> None:
    own = {f.name for f in fields(HipLoraConfig)} - {f.name for f in fields(LoraConfig)}
    from_lora = {"r", "lora_alpha", "lora_dropout", "rank_pattern", "alpha_pattern", "init_lora_weights"}
    checked = from_lora | own - {"svd_cache_dir", "svd_key"}
    assert {name.removeprefix("svd_").removeprefix("lora_") for name in checked} == {*RULES}


@pytest.mark.parametrize(
    ("prefix", "options", "sentence"),
    [
        ("method.", {"k": 0}, "method.k=0 must be a whole number of at least 1."),
        ("", {"k": 65, "k_max": 64}, "k=65 exceeds k_max=64, the number of directions computed; raise k_max."),
        ("method.", {"alpha": -1}, "method.alpha=-1 must be more than 0, or left out for twice the rank."),
        (
            "method.",
            {"alpha": 10**7},
            "method.alpha=10000000 must be more than 0 and at most 1e+06, or left out for twice the rank.",
        ),
        ("method.", {"lr_scale": 1e9}, "method.lr_scale=1000000000.0 must be a number from 0.0001 to 10000."),
        ("", {"lora_alpha": -1}, "lora_alpha=-1 must be more than 0, or left out for twice the rank."),
        ("svd.", {"recipe": "x"}, "svd.recipe='x' is not known; choose auto, exact, converged or randomized."),
        ("", {"svd_seed": -1}, "svd_seed=-1 must be a whole number of at least 0."),
        ("", {"zero_init": "no"}, "zero_init='no' must be true or false."),
        (
            "",
            {"rank_pattern": {"q": 1, "v": 0}},
            "rank_pattern={'q': 1, 'v': 0} is out of range at v, which must be a whole number of at least 1.",
        ),
    ],
)
def test_the_sentence_begins_with_what_the_user_typed(prefix: str, options: dict, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        check_options(prefix=prefix, **options)
    assert str(caught.value) == sentence


def test_what_is_in_range_or_has_none_passes() -> None:
    check_options(alpha=None, dropout=0, stability=0.0, svd_exact_up_to=0, rank_pattern=None, target_modules=["q_proj"])
    check_options(k=65, k_max=64, basis="random", principal=False)  # k_max counts singular directions
