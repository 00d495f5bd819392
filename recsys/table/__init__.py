"""Collisionless embedding tables: what one is (spec), what it promises (table), and what is built on it.

``NativeTable`` lives in ``recsys.table.native`` and needs the compiled core; ``ReferenceTable`` in
``recsys.table.reference`` needs numpy only.
"""

from recsys.table.admission import Admission, AdmitAll, Occurrence, Probabilistic
from recsys.table.clipping import ClipByNorm, ClipByValue
from recsys.table.codecs import BF16, FP16, FP32, Codec, Int4Row, Int8Row, OneBit
from recsys.table.initializers import Constant, Initializer, Uniform, Zeros
from recsys.table.optimizers import (
    FTRL,
    SGD,
    AdaDelta,
    Adagrad,
    Adam,
    AMSGrad,
    GroupAdagrad,
    GroupFTRL,
    Momentum,
    MovingAverage,
    Optimizer,
    RMSProp,
    RowWiseAdagrad,
    RowWiseAdam,
)
from recsys.table.retention import LFU, LRU, Capacity, DistanceLFU, Expiry
from recsys.table.schedules import CosineDecay, ExponentialDecay, InverseSqrt, WarmUp
from recsys.table.spec import SliceSpec, TableSpec
from recsys.table.table import Bags, Changes, EmbeddingTable, TableCounters, TableMemory, TableRows

__all__ = [
    "BF16",
    "FP16",
    "FP32",
    "FTRL",
    "LFU",
    "LRU",
    "SGD",
    "AMSGrad",
    "AdaDelta",
    "Adagrad",
    "Adam",
    "Admission",
    "AdmitAll",
    "Bags",
    "Capacity",
    "Changes",
    "ClipByNorm",
    "ClipByValue",
    "Codec",
    "Constant",
    "CosineDecay",
    "DistanceLFU",
    "EmbeddingTable",
    "Expiry",
    "ExponentialDecay",
    "GroupAdagrad",
    "GroupFTRL",
    "Initializer",
    "Int4Row",
    "Int8Row",
    "InverseSqrt",
    "Momentum",
    "MovingAverage",
    "Occurrence",
    "OneBit",
    "Optimizer",
    "Probabilistic",
    "RMSProp",
    "RowWiseAdagrad",
    "RowWiseAdam",
    "SliceSpec",
    "TableCounters",
    "TableMemory",
    "TableRows",
    "TableSpec",
    "Uniform",
    "WarmUp",
    "Zeros",
]
