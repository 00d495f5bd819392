"""TableSpec: its JSON form, its fingerprint and what it refuses."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import ConfigError
from recsys.table.spec import (
    SGD,
    Adagrad,
    Constant,
    RowWiseAdagrad,
    SliceSpec,
    TableSpec,
    Uniform,
    Zeros,
)

RATES = st.floats(0.001, 10.0)
OPTIMIZERS = st.one_of(
    st.builds(SGD, learning_rate=RATES),
    st.builds(Adagrad, learning_rate=RATES, initial_accumulator=RATES),
    st.builds(RowWiseAdagrad, learning_rate=RATES),
)
INITIALIZERS = st.one_of(
    st.just(Zeros()),
    st.builds(Constant, value=st.floats(-5, 5)),
    st.builds(Uniform, low=st.floats(-5, 0), high=st.floats(0, 5)),
)
SLICES = st.lists(
    st.builds(
        SliceSpec,
        name=st.text(min_size=1, max_size=4),
        dim=st.integers(1, 64),
        optimizer=OPTIMIZERS,
        initializer=INITIALIZERS,
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda part: part.name,
)
SPECS = st.builds(
    TableSpec,
    name=st.text(min_size=1, max_size=8),
    slices=SLICES.map(tuple),
    seed=st.integers(0, 2**64 - 1),
    missing=st.sampled_from(["zeros", "initializer"]),
)
WIDE = SliceSpec(name="wide", dim=1, optimizer=SGD(learning_rate=1), initializer=Zeros())
VECTOR = SliceSpec(
    name="vector",
    dim=16,
    optimizer=RowWiseAdagrad(learning_rate=0.05),
    initializer=Uniform(low=-0.05, high=0.05),
)


@settings(deadline=None)
@given(SPECS)
def test_json_gives_the_same_spec_back(spec):
    again = TableSpec.from_json(spec.to_json())
    assert again == spec
    assert again.fingerprint == spec.fingerprint < 2**64


@settings(deadline=None)
@given(SPECS, SPECS)
def test_fingerprints_are_equal_only_for_equal_specs(one, other):
    assert (one.fingerprint == other.fingerprint) == (one.to_json() == other.to_json())


def test_the_fingerprint_is_the_same_on_every_machine_and_in_every_release():
    assert TableSpec(name="items", slices=(WIDE, VECTOR)).fingerprint == 16013304133782348929


def test_slices_name_columns_in_order():
    spec = TableSpec(name="items", slices=(WIDE, VECTOR))
    assert (spec.dim, spec.state_dim) == (17, 1)
    assert spec.slice("wide") == slice(0, 1)
    assert spec.slice("vector") == slice(1, 17)
    with pytest.raises(ConfigError, match="no slice 'deep'"):
        spec.slice("deep")


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1},
        {"seed": -1},
        {"seed": 1.5},
        {"missing": "nothing"},
        {"slices": []},
        {"slices": 3},
        {"slices": [{"name": "wide", "dim": 1}]},
        {"name": ""},
    ],
)
def test_json_that_says_anything_else_is_refused(change):
    given_json = json.loads(TableSpec(name="items", slices=(WIDE,)).to_json()) | change
    with pytest.raises(ConfigError):
        TableSpec.from_json(json.dumps(given_json))


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"name": "x"}'])
def test_text_that_is_no_spec_is_refused(text):
    with pytest.raises(ConfigError):
        TableSpec.from_json(text)


@pytest.mark.parametrize("rule", [{"kind": "magic"}, {"kind": "sgd"}, {"kind": "zeros", "value": 1.0}, 3])
def test_an_unknown_or_incomplete_rule_is_refused(rule):
    given_json = json.loads(TableSpec(name="items", slices=(WIDE,)).to_json())
    for place in ("optimizer", "initializer"):
        given_json["slices"][0][place] = rule
        with pytest.raises(ConfigError):
            TableSpec.from_json(json.dumps(given_json))


def test_two_slices_of_one_name_are_refused():
    with pytest.raises(ConfigError, match="unique names"):
        TableSpec(name="items", slices=(WIDE, WIDE))


@pytest.mark.parametrize("dim", [0, -1, 1.0, True])
def test_a_slice_without_columns_is_refused(dim):
    with pytest.raises(ConfigError, match="dim must be an integer >= 1"):
        SliceSpec(name="wide", dim=dim, optimizer=SGD(learning_rate=1), initializer=Zeros())


def test_an_initializer_in_the_optimizer_s_place_is_refused():
    with pytest.raises(ConfigError, match="is not an optimizer"):
        SliceSpec(name="wide", dim=1, optimizer=Zeros(), initializer=Zeros())
