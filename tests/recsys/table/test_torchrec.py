"""The managed collision module against dictionaries, alone and inside torchrec's own collections."""

import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchrec.modules.embedding_configs import EmbeddingBagConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.modules.mc_embedding_modules import ManagedCollisionEmbeddingBagCollection
from torchrec.modules.mc_modules import ManagedCollisionCollection
from torchrec.sparse.jagged_tensor import JaggedTensor, KeyedJaggedTensor

from recsys.errors import ConfigError, SnapshotError
from recsys.table import LFU, Occurrence
from recsys.table.torchrec import CollisionlessManagedCollisionModule, OutputRange, SlotRules

CPU = torch.device("cpu")
ZCH, LAST = 9, 8
ANY_ID = st.one_of(st.integers(-3, 20), st.integers(-(1 << 63), (1 << 63) - 1))
BATCHES = st.lists(st.lists(st.integers(0, 20), max_size=12), max_size=12)


def module_of(zch_size=ZCH, **settings):
    rules = settings.pop("rules", None)
    return CollisionlessManagedCollisionModule(zch_size, CPU, rules, **settings)


def jagged(ids, name="t"):
    values = torch.tensor(ids, dtype=torch.int64)
    return {name: JaggedTensor(values=values, lengths=torch.ones(len(ids), dtype=torch.int64))}


def slots_of(module, ids, name="t"):
    return module(jagged(ids, name))[name].values().tolist()


def collections(module, return_remapped_features=True):
    config = EmbeddingBagConfig(name="t", num_embeddings=ZCH, embedding_dim=2, feature_names=["user", "item"])
    bags = EmbeddingBagCollection(tables=[config])
    managed = ManagedCollisionCollection({"t": module}, [config])
    return bags, ManagedCollisionEmbeddingBagCollection(bags, managed, return_remapped_features)


@given(st.lists(st.lists(ANY_ID, max_size=20), max_size=6))
def test_each_id_has_one_slot_of_its_own_while_there_is_room(batches):
    n_ids = len({i for batch in batches for i in batch})
    module, slot_of = module_of(max(2, n_ids + 1)), {}
    for batch in batches:
        for i, slot in zip(batch, slots_of(module, batch), strict=True):
            assert slot_of.setdefault(i, slot) == slot
    assert len(set(slot_of.values())) == n_ids
    assert not set(slot_of.values()) - set(range(n_ids))
    assert module.evict() is None
    assert module.open_slots().tolist() == [module.output_size() - 1 - n_ids]


@given(BATCHES)
def test_evict_names_the_slots_that_went_from_one_id_to_another(batches):
    told = []
    module, owner = module_of(4, on_recycled=lambda slots: told.append(slots.tolist())), {}
    for batch in batches:
        went = set()
        for i, slot in zip(batch, slots_of(module, batch), strict=True):
            if slot != 3 and owner.setdefault(slot, i) != i:
                owner[slot] = i
                went.add(slot)
        evicted = module.evict()
        assert (set() if evicted is None else set(evicted.tolist())) == went
        assert set(told.pop() if told else []) == went
    assert not told


@given(BATCHES, st.lists(ANY_ID, max_size=12))
def test_a_loaded_module_gives_each_id_the_slot_it_had(batches, asked):
    module, loaded = module_of(6, rules=SlotRules(policy=LFU())), module_of(6, rules=SlotRules(policy=LFU()))
    for batch in batches:
        slots_of(module, batch)
    slots_of(loaded, [40, 41, 42])
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    asked = asked + list(range(21))
    assert slots_of(loaded.eval(), asked) == slots_of(module.eval(), asked)
    assert loaded.open_slots().tolist() == module.open_slots().tolist()
    for name, tensor in module.state_dict()["_extra_state"].items():
        assert torch.equal(loaded.state_dict()["_extra_state"][name], tensor), name


def test_ten_thousand_slots_are_loaded_as_they_were():
    n = 10_000
    module, loaded = module_of(n + 1), module_of(n + 1)
    for begin in (0, 7_000):
        slots_of(module, range(begin, begin + 7_000))
    ids = range(2 * n)
    slots = slots_of(module.eval(), ids)
    loaded.load_state_dict(module.state_dict())
    assert slots_of(loaded.eval(), ids) == slots
    assert sum(slot < n for slot in slots) == n - module.open_slots().item()


def test_a_loaded_module_still_knows_whose_weights_a_slot_holds():
    module, loaded = module_of(4), module_of(4)
    slots_of(module, [1, 2, 3])
    loaded.load_state_dict(module.state_dict())
    went = slots_of(loaded, [5, 6])
    assert sorted(loaded.evict().tolist()) == sorted(went)


def test_eval_mode_changes_nothing_and_sends_unseen_ids_to_the_last_slot():
    module = module_of()
    seen = slots_of(module, [5, 6])
    module.eval()
    assert slots_of(module, [7, 5, -1, 6]) == [LAST, seen[0], LAST, seen[1]]
    assert module.open_slots().tolist() == [ZCH - 1 - 2]
    module.train()
    assert slots_of(module, [7], name="t_readonly") == [LAST]


def test_ids_beyond_the_room_of_one_batch_share_the_last_slot():
    slots = slots_of(module_of(4), [1, 2, 3, 4, 5, 1])
    assert slots == [slots[0], slots[1], slots[2], 3, 3, slots[0]]
    assert len(set(slots[:3])) == 3


def test_frequent_ids_outlive_rare_ones_under_lfu():
    module = module_of(4, rules=SlotRules(policy=LFU()))
    slots = slots_of(module, [1, 1, 1, 2, 2, 3])
    assert slots_of(module, [4]) == [slots[5]]
    module.eval()
    assert slots_of(module, [1, 2, 3]) == [slots[0], slots[3], 3]


def test_an_id_below_the_admission_threshold_has_the_last_slot():
    module = module_of(rules=SlotRules(admission=Occurrence(threshold=2)))
    slots = [slots_of(module, [5])[0] for _ in range(4)]
    assert slots[0] == LAST
    assert slots[-1] != LAST


def test_profile_and_then_remap_is_forward():
    whole, parts = module_of(4), module_of(4)
    for batch in ([1, 2, 2], [3, 4, 1], [9, 9, 4]):
        features = jagged(batch)
        assert parts.profile(features) is features
        want = whole(jagged(batch))["t"].values().tolist()
        assert parts.remap(parts.preprocess(features))["t"].values().tolist() == want


def test_slots_of_a_shard_begin_where_its_range_does():
    whole = module_of(8, output_range=OutputRange(segments=(0, 4, 8)))
    shard = whole.rebuild_with_output_id_range((4, 8), [0, 4, 8])
    assert (shard.output_size(), shard.buckets(), shard.input_size()) == (4, 2, (1 << 63) - 1)
    slots = slots_of(shard, [1, 2, 3])
    assert sorted(slots) == [4, 5, 6]
    assert slots_of(shard.eval(), [9]) == [7]
    slots_of(shard.train(), [4, 5])
    assert set(shard.evict().tolist()) < set(slots)
    shard.load_state_dict(shard.state_dict())


def test_torchrecs_collection_reads_and_trains_one_row_for_each_id():
    bags, collection = collections(module_of())
    kjt = KeyedJaggedTensor(
        keys=["item", "user"],
        values=torch.tensor([1 << 62, -5, -5, 7, 7, 1 << 62]),
        lengths=torch.tensor([2, 1, 1, 2]),
    )
    pooled, remapped = collection(kjt)
    weights = bags.embedding_bags["t"].weight
    slot_of = dict(
        zip([7, 7, 1 << 62, 1 << 62, -5, -5], remapped.values().tolist(), strict=True)
    )  # torchrec puts the user first, as its config does
    assert len(set(slot_of.values())) == 3
    want = weights[slot_of[7]], weights[slot_of[7]] + weights[slot_of[1 << 62]]
    torch.testing.assert_close(pooled["user"], torch.stack(want))
    pooled["item"].sum().backward()
    touched = weights.grad.abs().sum(dim=1).nonzero().flatten().tolist()
    assert touched == sorted({slot_of[1 << 62], slot_of[-5]})


def test_a_recycled_row_can_be_reset_before_it_is_read_for_its_new_id():
    def reset(slots):
        bags.embedding_bags["t"].weight.data[slots] = 0.0

    module = module_of(on_recycled=reset)
    bags, collection = collections(module)
    for begin in range(0, 64, 4):
        kjt = KeyedJaggedTensor(
            keys=["user", "item"],
            values=torch.arange(begin, begin + 4),
            lengths=torch.tensor([1, 1, 1, 1]),
        )
        pooled, _ = collection(kjt)
        if begin >= ZCH - 1:
            assert not pooled.values().any()
            bags.embedding_bags["t"].weight.data += 1.0


def test_steps_count_as_time_unless_event_times_are_set():
    module = module_of(3)
    slots = [slots_of(module, [i])[0] for i in (1, 2)]
    assert slots_of(module, [1]) == slots[:1]
    assert slots_of(module, [3]) == slots[1:]
    dated = module_of(3)
    for event_time_s, i in ((200, 1), (100, 2)):
        dated.event_time_s = event_time_s
        slots_of(dated, [i])
    slots_of(dated, [3])
    assert slots_of(dated.eval(), [2]) == [2]


@settings(max_examples=20)
@given(st.sampled_from(["owner", "is_taken", "ledger.clock_s", "all"]))
def test_a_state_of_another_kind_is_refused_and_changes_nothing(broken):
    module = module_of()
    slots = slots_of(module, [3, 1, 2])
    state = module.state_dict()
    extra = dict(state["_extra_state"])
    if broken == "all":
        extra = module_of(ZCH + 1).get_extra_state()
    else:
        del extra[broken]
    with pytest.raises(SnapshotError):
        module.load_state_dict({**state, "_extra_state": extra})
    twice = dict(state["_extra_state"])
    twice["owner"] = torch.zeros_like(twice["owner"].view(torch.int64)).view(torch.uint64)
    with pytest.raises(SnapshotError, match="damaged"):
        module.set_extra_state(twice)
    assert slots_of(module.eval(), [3, 1, 2]) == slots


def test_a_module_without_room_for_an_id_is_refused():
    with pytest.raises(ConfigError, match="zch_size must be >= 2"):
        module_of(1)


def test_bags_keep_their_lengths_and_weights():
    features = {
        "t": JaggedTensor(
            values=torch.tensor([1, 2, 3]),
            lengths=torch.tensor([2, 0, 1]),
            weights=torch.tensor([1.0, 2.0, 3.0]),
        )
    }
    remapped = module_of()(features)["t"]
    assert remapped.lengths().tolist() == [2, 0, 1]
    assert remapped.weights().tolist() == [1.0, 2.0, 3.0]
    assert len(set(remapped.values().tolist())) == 3
