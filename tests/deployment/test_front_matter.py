"""The front matter of a model card is YAML in which every text stays that text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featx.deployment.front_matter import front_matter

yaml = pytest.importorskip("yaml", reason="comes with the client of the Hugging Face hub")

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    TEXTS.filter(bool),
    st.lists(TEXTS, min_size=1),
    st.dictionaries(TEXTS, st.floats(allow_nan=False, allow_infinity=False), min_size=1),
)
def test_any_text_comes_back(text: str, items: list[str], numbers: dict[str, float]) -> None:
    found = front_matter({"name": text, "tags": items, "results": [{"metrics": numbers, "ok": True}]})
    assert found.startswith("---\n")
    assert found.endswith("\n---\n")
    assert yaml.safe_load(found[4:-4]) == {"name": text, "tags": items, "results": [{"metrics": numbers, "ok": True}]}


@pytest.mark.parametrize("name", ["no", "True", "1e3", "---", "null", "a: b # c", "- x", "'", "2020-01-01", "\ud83d"])
def test_names_that_yaml_has_other_ideas_of_stay_texts(name: str) -> None:
    read = name.replace("\ud83d", "\ufffd")
    assert yaml.safe_load(front_matter({"tags": [name], name: 1})[4:-4]) == {"tags": [read], read: 1}
