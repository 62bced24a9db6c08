"""The canonical form: one value, one text; and the digests that stand on it, pinned."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_operator.contract.canonical import canonical_json, dataset_digest, digest, row_digest, sha256_hex

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("value", "want"),
    [
        pytest.param(
            {"b": 1, "a": [True, None]}, '{"a":[true,null],"b":1}', id="keys are sorted and nothing is spaced"
        ),
        pytest.param("Grüße 🙂", '"Grüße 🙂"', id="text stays UTF-8, unescaped"),
        pytest.param(0.5, '{"$float":"0.5"}', id="a float is its shortest text"),
        pytest.param(1.0, '{"$float":"1.0"}', id="a whole float is no integer"),
        pytest.param(1e100, '{"$float":"1e+100"}', id="a large float keeps its exponent"),
        pytest.param({"$float": "0.5"}, '{"$$float":"0.5"}', id="a caller's own key cannot look like a float"),
        pytest.param({"$$float": 1}, '{"$$$float":1}', id="nor like an escaped one"),
        pytest.param((1, [2]), "[1,[2]]", id="a tuple is a list"),
        pytest.param(10**30, "1" + "0" * 30, id="a large integer keeps its digits"),
    ],
)
def test_a_value_has_one_form(value: object, want: str) -> None:
    assert canonical_json(value) == want.encode()


@pytest.mark.parametrize(
    ("value", "error", "says"),
    [
        pytest.param(math.nan, ValueError, "nan", id="NaN"),
        pytest.param([math.inf], ValueError, "inf", id="infinity, also inside"),
        pytest.param("\ud800", ValueError, "surrogates", id="a lone surrogate"),
        pytest.param({1: 2}, TypeError, "key must be a string, not int", id="a key that is no string"),
        pytest.param({1, 2}, TypeError, "set has no canonical form", id="a type that JSON does not know"),
    ],
)
def test_what_has_no_form_is_refused(value: object, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        canonical_json(value)


def test_nesting_too_deep_for_json_is_refused() -> None:
    value: list[object] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(ValueError, match="nested too deeply"):
        canonical_json(value)


@given(VALUES)
def test_the_form_is_json_that_reads_back_as_the_value(value: object) -> None:
    def restored(item: object) -> object:
        if isinstance(item, list):
            return [restored(inner) for inner in item]
        if isinstance(item, dict):
            if "$float" in item:
                return float(item["$float"])
            return {key[1:] if key.startswith("$") else key: restored(inner) for key, inner in item.items()}
        return item

    assert repr(restored(json.loads(canonical_json(value)))) == repr(_sorted(value))


@given(st.dictionaries(TEXTS, VALUES, max_size=5), st.randoms())
def test_the_order_of_keys_does_not_count(value: dict[str, object], random: object) -> None:
    keys = list(value)
    random.shuffle(keys)  # type: ignore[attr-defined]
    assert canonical_json({key: value[key] for key in keys}) == canonical_json(value)


def test_digests_never_change() -> None:
    row = row_digest({"ticket": "Where is my invoice?", "label": "billing", "weight": 0.5})
    assert row == "d5eb26a68944b0f5109b92de9077220e42ab4471103289bd8e6f05181dd5e9a9"
    assert row == sha256_hex(b'{"label":"billing","ticket":"Where is my invoice?","weight":{"$float":"0.5"}}')
    assert digest({"a": 1}) == "v1:015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"
    assert digest({"a": 1}, algorithm="v2") == digest({"a": 1}).replace("v1:", "v2:")
    assert (
        dataset_digest([(row, "dev"), ("ab", "test")])
        == "v1:0284c4d63a4371c8ef3727998dd5a320d7b5e1616c06c79a8485deddb9a2ed79"
    )
    assert dataset_digest([]) == digest([])


def test_the_order_and_the_part_of_rows_count_in_a_dataset() -> None:
    rows = [("aa", "dev"), ("bb", "test")]
    assert (
        len({dataset_digest(rows), dataset_digest(rows[::-1]), dataset_digest([("aa", "test"), ("bb", "test")])}) == 3
    )


def _sorted(value: object) -> object:
    if isinstance(value, list):
        return [_sorted(item) for item in value]
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value, key=lambda key: f"${key}" if key[:1] == "$" else key)}
    return value
