"""What every table promises about the codecs that it stores weights in.

Axes: N keys of one call, D weights of a row.
"""

from __future__ import annotations

import numpy as np
import pytest

from recsys.checks.table_specimens import MakeTable, all_rows, bags_of, keys_of, row_bits
from recsys.errors import ConfigError
from recsys.table import (
    BF16,
    FP16,
    FP32,
    SGD,
    Codec,
    Int4Row,
    Int8Row,
    OneBit,
    SliceSpec,
    TableSpec,
    Zeros,
    codecs,
)
from recsys.table.reference import ReferenceTable


def check_stored_weights_are_within_the_codec_s_error(make_table: MakeTable) -> None:
    random = np.random.default_rng(5)
    weights_ND = random.normal(size=(40, 37)).astype(np.float32)
    keys_N = random.integers(0, 1 << 63, 40).astype(np.uint64)
    kinds: list[Codec] = [FP16(), FP16(rounding="stochastic"), BF16(), BF16(rounding="stochastic")]
    for codec in [*kinds, Int8Row(), Int4Row(), OneBit(amplitude=0.5)]:
        spec = _stored_as(codec)
        table, twin = make_table(spec), ReferenceTable(spec)
        for t in (table, twin):
            t.assign(keys_N, weights_ND)
        error_ND = np.abs(table.lookup(keys_N).astype(np.float64) - weights_ND)
        assert (error_ND <= codecs.error_bound(codec, weights_ND)).all(), codec
        assert row_bits(all_rows(table)) == row_bits(all_rows(twin)), codec
        again = make_table(spec)
        again.import_rows(all_rows(table))
        assert row_bits(all_rows(again)) == row_bits(all_rows(table)), codec


def check_weights_that_are_no_numbers_are_held_as_the_codec_holds_them(make_table: MakeTable) -> None:
    # A replica has to show what its trainer's table holds, and that may have diverged.
    weights_ND = np.ones((3, 37), dtype=np.float32)
    weights_ND[0, 5], weights_ND[1, 6], weights_ND[2, 7] = np.nan, np.inf, -np.inf
    seen_as: list[tuple[Codec, list[float]]] = [
        (FP32(), [np.nan, np.inf, -np.inf]),
        (FP16(), [np.nan, 65504.0, -65504.0]),
        (BF16(rounding="stochastic"), [np.nan, float.fromhex("0x1.fep127"), -float.fromhex("0x1.fep127")]),
        (OneBit(amplitude=0.5), [-0.5, 0.5, -0.5]),
    ]
    for codec, held in seen_as:
        table = make_table(_stored_as(codec))
        table.assign(keys_of(0, 1, 2), weights_ND)
        got_ND = table.lookup(keys_of(0, 1, 2))
        np.testing.assert_array_equal([got_ND[0, 5], got_ND[1, 6], got_ND[2, 7]], held)
    for codec in (Int8Row(), Int4Row()):
        table, twin = make_table(_stored_as(codec)), ReferenceTable(_stored_as(codec))
        for t in (table, twin):
            t.assign(keys_of(0, 1, 2), weights_ND)
        assert table.lookup(keys_of(0))[0, 5] == 0.0
        assert row_bits(all_rows(table)) == row_bits(all_rows(twin))


def check_stochastic_rounding_keeps_what_small_steps_add_up_to(make_table: MakeTable) -> None:
    # From 1 up, halves lie 2**-10 apart: steps of a tenth of that are lost when rounded to the nearest.
    walked = {}
    for rounding in ("nearest", "stochastic"):
        table = make_table(_stored_as(FP16(rounding=rounding)))
        table.assign(keys_of(1), np.ones((1, 37), dtype=np.float32))
        for _ in range(100):
            table.learn(keys_of(1), np.full((1, 37), -(2.0**-10) / 10, dtype=np.float32), event_time_s=1)
        walked[rounding] = float(table.lookup(keys_of(1)).mean()) - 1.0
    assert walked["nearest"] == 0.0
    # Ten steps of the grid; the mean of 37 walks has a standard deviation of half of one.
    assert abs(walked["stochastic"] * 2.0**10 - 10.0) < 2.5


def check_a_table_for_serving_refuses_to_learn(make_table: MakeTable) -> None:
    for codec in (Int8Row(), Int4Row(), OneBit(amplitude=0.5)):
        table = make_table(_stored_as(codec))
        table.assign(keys_of(1), np.ones((1, 37), dtype=np.float32))
        with pytest.raises(ConfigError, match="only fp32, fp16 and bf16 can be learned in"):
            table.learn(keys_of(1), np.ones((1, 37), dtype=np.float32), event_time_s=1)
        with pytest.raises(ConfigError, match="only fp32, fp16 and bf16 can be learned in"):
            table.learn_bags(keys_of(1), bags_of(1), np.ones((1, 37), dtype=np.float32), event_time_s=1)
        assert (table.steps, table.clock_s) == (0, 0)


def _stored_as(codec: Codec) -> TableSpec:
    part = SliceSpec(name="w", dim=37, optimizer=SGD(learning_rate=1.0), initializer=Zeros(), codec=codec)
    return TableSpec(name="stored", slices=(part,))


STORAGE = (
    check_stored_weights_are_within_the_codec_s_error,
    check_weights_that_are_no_numbers_are_held_as_the_codec_holds_them,
    check_stochastic_rounding_keeps_what_small_steps_add_up_to,
    check_a_table_for_serving_refuses_to_learn,
)
"""For any table."""
