"""A recipe's mistakes are named with what was probably meant."""

import pytest

from k2d.errors import BadRequest
from trainer.options import load_recipe


@pytest.mark.parametrize(
    ("key", "meant"), [("stps", "steps"), ("learning_rat", "learning_rate"), ("holdoutt", "holdout")]
)
def test_an_unknown_key_names_the_nearest_and_the_list_of_keys(key: str, meant: str) -> None:
    with pytest.raises(BadRequest, match=key) as caught:
        load_recipe("default", {key: 3})
    assert f"did you mean {meant}?" in (caught.value.hint or "")
    assert "docs/recipe.md" in (caught.value.hint or "")
