"""TableSpec: its JSON form, its fingerprint and what it refuses."""

import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys.checks import table_settings
from recsys.errors import ConfigError
from recsys.table import (
    BF16,
    LFU,
    SGD,
    Adagrad,
    Capacity,
    ClipByNorm,
    Expiry,
    Int4Row,
    Int8Row,
    Occurrence,
    Probabilistic,
    RowWiseAdagrad,
    SliceSpec,
    TableSpec,
    Uniform,
    WarmUp,
    Zeros,
)

SPECS = table_settings.specs(
    admission=table_settings.ADMISSIONS, capacity=st.one_of(st.none(), table_settings.CAPACITIES)
)
WIDE = SliceSpec(name="wide", dim=1, optimizer=SGD(learning_rate=1), initializer=Zeros())
VECTOR = SliceSpec(
    name="vector",
    dim=16,
    optimizer=RowWiseAdagrad(learning_rate=0.05),
    initializer=Uniform(low=-0.05, high=0.05),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SPECS)
def test_json_gives_the_same_spec_back(spec):
    again = TableSpec.from_json(spec.to_json())
    assert again == spec
    assert hash(again) == hash(spec)
    assert again.fingerprint == spec.fingerprint < 2**64


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=50)
@given(SPECS, SPECS)
def test_how_rows_are_kept_leaves_the_fingerprint_alone(one, other):
    slices = tuple(replace(part, codec=BF16(), clip=ClipByNorm(limit=3.0)) for part in one.slices)
    rules = {name: getattr(other, name) for name in ("admission", "expiry", "capacity")}
    assert replace(one, slices=slices, **rules).fingerprint == one.fingerprint


def test_what_rows_mean_changes_the_fingerprint():
    items = TableSpec(name="items", slices=(WIDE, VECTOR))
    changed = [
        replace(items, name="users"),
        replace(items, seed=1),
        replace(items, missing="initializer"),
        replace(items, slices=(VECTOR, WIDE)),
        replace(items, slices=(WIDE,)),
        *(
            replace(items, slices=(replace(WIDE, **change), VECTOR))
            for change in (
                {"name": "broad"},
                {"dim": 2},
                {"optimizer": SGD(learning_rate=2)},
                {"optimizer": SGD(learning_rate=WarmUp(peak=1, steps=9))},
                {"optimizer": Adagrad(learning_rate=1)},
                {"initializer": Uniform(low=0, high=1)},
            )
        ),
    ]
    assert len({spec.fingerprint for spec in [items, *changed]}) == len(changed) + 1


def test_the_fingerprint_is_the_same_on_every_machine_and_in_every_release():
    assert TableSpec(name="items", slices=(WIDE, VECTOR)).fingerprint == 10533220150032362661


def test_slices_name_columns_in_order():
    spec = TableSpec(name="items", slices=(WIDE, VECTOR))
    assert (spec.dim, spec.state_dim) == (17, 1)
    assert (spec.weight_bytes, spec.row_bytes) == (68, 72)
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
        {"seed": True},
        {"admission": {"kind": "lru"}},
        {"admission": None},
        {"expiry": {"kind": "admit_all"}},
        {"expiry": {"kind": "expiry", "max_idle_s": 0, "by_feature": [], "max_skew_s": 0}},
        {"capacity": {"kind": "capacity", "max_rows": 5, "max_bytes": 5, "policy": {"kind": "lru"}}},
        {"nonfinite": "ignore"},
        {"nonfinite": "clip"},
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
    for place in ("optimizer", "initializer", "codec", "clip"):
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


@pytest.mark.parametrize(
    ("place", "value", "complaint"),
    [
        ("initializer", SGD(learning_rate=1), "is not an initializer"),
        ("codec", Zeros(), "is not a codec"),
        ("clip", LFU(), "is not a clipping rule"),
        ("name", "", "a slice needs a name"),
    ],
)
def test_a_rule_in_another_s_place_is_refused(place, value, complaint):
    with pytest.raises(ConfigError, match=complaint):
        replace(WIDE, **{place: value})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"name": ""}, "a table needs a name"),
        ({"slices": ()}, "want one slice or more"),
        ({"seed": 1 << 64}, "seed must be an integer of 64 bits"),
        ({"missing": None}, "missing must be"),
        ({"admission": LFU()}, "admission cannot be LFU"),
        ({"expiry": 30}, "expiry cannot be 30"),
        ({"capacity": 1000}, "capacity cannot be 1000"),
        ({"nonfinite": "clip"}, r"nonfinite='clip' needs a clip on \['wide'\]"),
    ],
)
def test_a_table_of_wrong_rules_is_refused(change, complaint):
    with pytest.raises(ConfigError, match=complaint):
        replace(TableSpec(name="items", slices=(WIDE,)), **change)


def test_expiry_and_admission_survive_json_whatever_they_were_given_as():
    spec = TableSpec(
        name="items",
        slices=(WIDE,),
        expiry=Expiry(max_idle_s=60, by_feature={9: 5, 2: 7}),
        admission=Probabilistic(threshold=4, rule="linear"),
        capacity=Capacity(max_bytes=1 << 30, policy=LFU()),
    )
    again = TableSpec.from_json(spec.to_json())
    assert again == spec
    assert again.expiry.by_feature == ((2, 7), (9, 5))
    assert again.admission != Occurrence(threshold=4)


def test_a_table_in_codecs_for_serving_is_not_learnable():
    served = replace(VECTOR, codec=Int8Row()), replace(WIDE, codec=Int4Row())
    spec = TableSpec(name="items", slices=served)
    assert not spec.is_learnable
    assert (spec.weight_bytes, spec.state_dim) == (4 + 16 + 4 + 1, 1)
    assert TableSpec(name="items", slices=(WIDE, VECTOR)).is_learnable
