"""Two made-up sets with twelve domains and three hidden distributions: where sharing should pay off.

Each row belongs to a domain and, unseen by any model, to one of three latents, which its domain makes
likely but not certain. The latent decides which weights turn the row's fields into its click rate, and
shows itself in some of the fields. So what helps is to tell latents apart, not domains.

Fields and the domain are keys; no value is 0, which stands for "unknown". In the formulas domains are
numbered d = 0 to 11; in the rows they are 1 to 12.

Axes: N rows, F fields, V values of a field, C numbers that a row or value is turned into, Z latents.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.features import Feature, FeatureSchema, RaggedKeys
from recsys.keys import Ids

Floats = NDArray[np.float64]

N_DOMAINS, N_LATENTS, VECTOR_DIM = 12, 3, 4
SYN_ROWS, SYN2_ROWS = 120_000, 80_000
# The first seed under which .37 of syn2's labels are positive; seeds differ by .02.
SYN2_SEED = 5
SYN_SHARES = np.array([30, 20, 12, 8, 7, 6, 5, 4, 3, 2, 2, 1]) / 100
CODE_BITS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticRows:
    """Rows in no particular order of time. Immutable: any number of readers."""

    schema: FeatureSchema
    """One feature per field, "field_0" and so on, and "domain" as the last one."""
    keys: RaggedKeys
    label_N: NDArray[np.float32]
    domain_N: Ids
    """1 to 12; 0 is kept for no domain."""
    latent_N: Ids
    """0 to 2: what a model has to find out, and must not be shown."""
    logit_N: Floats
    """The true one: no model can order the rows better in the long run."""

    def __len__(self) -> int:
        return len(self.label_N)


def syn(*, seed: int = 0, n_rows: int = SYN_ROWS) -> SyntheticRows:
    """Unequal domains, eight fields whose every value hints at the latent, and a cross of two of them.

    P(z | d) is .80 for z = d mod 3, else .10; a field's values follow a Dirichlet(.15) draw per latent;
    logit = 1.2 (v·W_z)/√32 + 1.2 (v₀ᵀ P_z v₁)/4 - 1.2 + .3 sin d.
    """
    rng = np.random.default_rng(seed)
    n_fields, n_values = 8, 40
    vectors_FVC = rng.standard_normal((n_fields, n_values, VECTOR_DIM))
    weights_ZC = rng.standard_normal((N_LATENTS, n_fields * VECTOR_DIM))
    cross_Z = rng.standard_normal((N_LATENTS, VECTOR_DIM, VECTOR_DIM))
    chance_ZFV = rng.dirichlet(np.full(n_values, 0.15), (N_LATENTS, n_fields))
    domain_N = rng.choice(N_DOMAINS, n_rows, p=SYN_SHARES)
    latent_N = _latents(rng, domain_N, likely=0.80)
    values_NF = _drawn(rng, chance_ZFV, latent_N)
    vector_NC = _vectors(vectors_FVC, values_NF)
    linear_N = _by_latent(vector_NC, weights_ZC, latent_N) / np.sqrt(vector_NC.shape[1])
    first_N, second_N = vectors_FVC[0, values_NF[:, 0]], vectors_FVC[1, values_NF[:, 1]]
    crossed_N = np.einsum("na,nab,nb->n", first_N, cross_Z[latent_N], second_N) / VECTOR_DIM
    logit_N = 1.2 * linear_N + 1.2 * crossed_N - 1.2 + 0.3 * np.sin(domain_N)
    return _rows(rng, values_NF, domain_N, latent_N, logit_N)


@dataclass(frozen=True, slots=True, kw_only=True)
class Jump:
    """One domain's distribution becomes another one: its rows' likeliest latent is the next."""

    domain: int
    """1 to 12."""
    at_row: int
    """The first row of the new state."""


def syn2(*, seed: int = SYN2_SEED, n_rows: int = SYN2_ROWS, jump: Jump | None = None) -> SyntheticRows:
    """Equal domains, six fields that decide and tell nothing of the latent, four that tell it only.

    P(z | d) is .70 for z = d mod 3, else .15. The six take one of 100 values each, evenly; the four are
    10 z + U{0..9} nine times out of ten and U{0..29} otherwise. logit = 2.5 (v·W_z)/√24 - 1 over the six.
    With a ``jump``, the rows of that domain from there on have z = (d + 1) mod 3 as their likeliest latent;
    all draws stay the same, so that rows outside of it do.
    """
    rng = np.random.default_rng(seed)
    n_deciding, n_values, n_telling = 6, 100, 4
    vectors_FVC = rng.standard_normal((n_deciding, n_values, VECTOR_DIM))
    weights_ZC = rng.standard_normal((N_LATENTS, n_deciding * VECTOR_DIM))
    domain_N = rng.integers(0, N_DOMAINS, n_rows)
    latent_N = _latents(rng, domain_N, likely=0.70)
    if jump is not None:
        has_jumped_N = (domain_N + 1 == jump.domain) & (np.arange(n_rows) >= jump.at_row)
        latent_N = np.where(has_jumped_N, (latent_N + 1) % N_LATENTS, latent_N)
    deciding_NF = rng.integers(0, n_values, (n_rows, n_deciding))
    own_NF = 10 * latent_N[:, None] + rng.integers(0, 10, (n_rows, n_telling))
    any_NF = rng.integers(0, 10 * N_LATENTS, (n_rows, n_telling))
    telling_NF = np.where(rng.random((n_rows, n_telling)) < 0.9, own_NF, any_NF)
    vector_NC = _vectors(vectors_FVC, deciding_NF)
    logit_N = 2.5 * _by_latent(vector_NC, weights_ZC, latent_N) / np.sqrt(vector_NC.shape[1]) - 1
    return _rows(rng, np.hstack([deciding_NF, telling_NF]), domain_N, latent_N, logit_N)


def _latents(rng: np.random.Generator, domain_N: Ids, likely: float) -> Ids:
    """The latent of each row, (N,): that of its domain with chance ``likely``, else one of the others."""
    shift_N = np.where(rng.random(len(domain_N)) < likely, 0, rng.integers(1, N_LATENTS, len(domain_N)))
    return (domain_N + shift_N) % N_LATENTS


def _drawn(rng: np.random.Generator, chance_ZFV: Floats, latent_N: Ids) -> Ids:
    """A value of each field by its latent's chances, (N, F)."""
    values_NF = np.empty((len(latent_N), chance_ZFV.shape[1]), dtype=np.int64)
    for latent, chance_FV in enumerate(chance_ZFV):
        rows = np.flatnonzero(latent_N == latent)
        for field, chance_V in enumerate(chance_FV):
            values_NF[rows, field] = rng.choice(len(chance_V), len(rows), p=chance_V)
    return values_NF


def _vectors(vectors_FVC: Floats, values_NF: Ids) -> Floats:
    """The vectors of a row's values side by side, (N, C)."""
    n_rows, n_fields = values_NF.shape
    return vectors_FVC[np.arange(n_fields), values_NF].reshape(n_rows, -1)


def _by_latent(vector_NC: Floats, weights_ZC: Floats, latent_N: Ids) -> Floats:
    """v·W_z of each row, (N,)."""
    of_each: Floats = (vector_NC @ weights_ZC.T)[np.arange(len(latent_N)), latent_N]
    return of_each


def _rows(
    rng: np.random.Generator, values_NF: Ids, domain_N: Ids, latent_N: Ids, logit_N: Floats
) -> SyntheticRows:
    """Labels drawn by their logits, and everything numbered from 1."""
    columns = {f"field_{field}": values_N + 1 for field, values_N in enumerate(values_NF.T)}
    columns["domain"] = domain_N + 1
    # Number 0 stays free: no key is 0.
    schema = FeatureSchema(
        tuple(
            Feature(name=name, number=number, columns=(name,), bits=(CODE_BITS,))
            for number, name in enumerate(columns, start=1)
        )
    )
    return SyntheticRows(
        schema=schema,
        keys=schema.encode(columns, len(domain_N)),
        label_N=(rng.random(len(logit_N)) < 1 / (1 + np.exp(-logit_N))).astype(np.float32),
        domain_N=columns["domain"],
        latent_N=latent_N,
        logit_N=logit_N,
    )
