"""Domains told from keys."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import ConfigError
from recsys.features import Feature, FeatureSchema, Ragged
from recsys.multidomain.domain_index import FeatureDomains, RandomDomains

SCHEMA = FeatureSchema(
    (
        Feature(name="tags", number=1, columns=("tags",), bits=(8,)),
        Feature(name="tab", number=2, columns=("tab",), bits=(8,)),
        Feature(name="item", number=3, columns=("item",), bits=(20,)),
    )
)
ROWS = st.lists(
    st.tuples(st.lists(st.integers(0, 200), max_size=4), st.integers(0, 20), st.integers(0, 1_000)),
    min_size=1,
    max_size=30,
)


def keys_of(rows):
    tags = [tag for one, _, _ in rows for tag in one]
    columns = {
        "tags": Ragged(np.array(tags, np.int64), np.array([len(one) for one, _, _ in rows])),
        "tab": np.array([tab for _, tab, _ in rows]),
        "item": np.array([item for _, _, item in rows]),
    }
    return SCHEMA.encode(columns, len(rows))


@given(ROWS)
def test_a_domain_is_the_place_of_its_value_and_all_others_share_the_last(rows):
    values = (7, 3, 12)
    found = FeatureDomains(feature=1, values=values).of(keys_of(rows))
    assert found.tolist() == [values.index(tab) if tab in values else 3 for _, tab, _ in rows]


@given(ROWS)
def test_a_row_without_the_feature_or_with_several_values_is_of_no_known_domain(rows):
    found = FeatureDomains(feature=0, values=(5, 6)).of(keys_of(rows))
    assert found.tolist() == [
        (5, 6).index(tags[0]) if len(tags) == 1 and tags[0] in (5, 6) else 2 for tags, _, _ in rows
    ]


@given(ROWS, st.integers(1, 5))
def test_random_domains_depend_on_the_row_alone(rows, n_domains):
    domains = RandomDomains(n_domains=n_domains)
    found = domains.of(keys_of(rows))
    assert ((found >= 0) & (found < n_domains)).all()
    assert found.tolist() == [int(domains.of(keys_of([row]))[0]) for row in rows]


def test_random_domains_are_even():
    found = RandomDomains(n_domains=3).of(keys_of([([], n % 7, n) for n in range(1_000)]))
    assert np.bincount(found).min() > 280


def test_a_value_named_twice_is_refused():
    with pytest.raises(ConfigError, match="each once and >= 0; got"):
        FeatureDomains(feature=0, values=(1, 1))
