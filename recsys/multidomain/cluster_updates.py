"""How cluster centres follow the rows that are routed to them, as pure functions.

``cosine`` is the default and ours: rows are centred and scaled to unit length before they are compared,
so that centres cannot all turn towards the batch's mean. The other three are readings of the paper and
of two public re-implementations, which do collapse when embeddings are small (docs/papers/adaptdhm.md).

Axes: B rows, D columns of a routed row, K clusters, T inner rounds.
Reference: Li et al., "AdaptDHM", arXiv:2211.12105, the distribution adaptation module.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Sums = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(x_BD, r_BK) to (Σ_i r_ik x_i (K, D), Σ_i r_ik (K,)), over the rows of all ranks."""

EPSILON = 1e-6


def unit(x_BD: Tensor) -> Tensor:
    """Rows at length 1; a row of zeros stays one."""
    return torch.nn.functional.normalize(x_BD, dim=1)


def similarity_BK(x_BD: Tensor, centres_KD: Tensor, temperature: float = 1.0) -> Tensor:
    """Dot product of each row with each centre over the temperature; a cosine where both are unit rows."""
    return x_BD @ centres_KD.T / temperature


def coefficients_BK(similarity_BK: Tensor) -> Tensor:
    """Distribution coefficients: a softmax over clusters."""
    # Over the first axis: torch's softmax over a few neighbours is ten times as slow.
    return torch.softmax(similarity_BK.T.contiguous(), dim=0).T


def weighted_sums(x_BD: Tensor, r_BK: Tensor) -> tuple[Tensor, Tensor]:
    """(Σ_i r_ik x_i (K, D), Σ_i r_ik (K,)) of these rows."""
    return r_BK.T @ x_BD, r_BK.sum(dim=0)


def moved(centres_KD: Tensor, candidate_KD: Tensor, memory: float) -> Tensor:
    """Centres on their way to the candidates: norm(βC + (1 - β)c), (K, D)."""
    return unit(memory * centres_KD + (1.0 - memory) * candidate_KD)


def cosine(
    x_BD: Tensor, centres_KD: Tensor, *, rounds: int, memory: float, temperature: float, sums: Sums
) -> Tensor:
    """T rounds from the centres to c_k = norm(Σ r x̂ / (Σ r + ε)), then one move towards them.

    Rows are centred and of unit length.
    """
    inner_KD = centres_KD
    for _ in range(rounds):
        sum_KD, mass_K = sums(x_BD, coefficients_BK(similarity_BK(x_BD, inner_KD, temperature)))
        inner_KD = unit(sum_KD / (mass_K[:, None] + EPSILON))
    return moved(centres_KD, inner_KD, memory)


def paper(x_BD: Tensor, centres_KD: Tensor, *, rounds: int, memory: float, sums: Sums) -> Tensor:
    """The likeliest reading of the paper: T rounds of c = norm(Σ r e), then one move of C towards c."""
    inner_KD = centres_KD
    for _ in range(rounds):
        inner_KD = unit(sums(x_BD, coefficients_BK(similarity_BK(x_BD, inner_KD)))[0])
    return moved(centres_KD, inner_KD, memory)


def swr(x_BD: Tensor, centres_KD: Tensor, *, rounds: int, memory: float, sums: Sums) -> Tensor:
    """T moves of C towards Σ r e, which is not normalised."""
    for _ in range(rounds):
        candidate_KD = sums(x_BD, coefficients_BK(similarity_BK(x_BD, centres_KD)))[0]
        centres_KD = moved(centres_KD, candidate_KD, memory)
    return centres_KD


def adl(x_BD: Tensor, centres_KD: Tensor, *, memory: float, sums: Sums) -> Tensor:
    """One move of C towards norm(Σ r e); further rounds would repeat it."""
    candidate_KD = unit(sums(x_BD, coefficients_BK(similarity_BK(x_BD, centres_KD)))[0])
    return moved(centres_KD, candidate_KD, memory)


def farthest_first(x_BD: Tensor, n: int) -> Tensor:
    """``n`` rows as centres, (n, D): the first one, then each time the one least like all chosen ones.

    Rows are of unit length. Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985.
    """
    chosen = [0]
    nearest_B = x_BD @ x_BD[0]
    for _ in range(n - 1):
        chosen.append(int(nearest_B.argmin()))
        nearest_B = torch.maximum(nearest_B, x_BD @ x_BD[chosen[-1]])
    return x_BD[chosen].clone()


def k_means(x_BD: Tensor, centres_KD: Tensor, rounds: int) -> Tensor:
    """Centres after ``rounds`` of spherical k-means; one without rows stays where it is.

    Rows are of unit length. Dhillon & Modha, Machine Learning 42, 2001.
    """
    for _ in range(rounds):
        nearest_B = similarity_BK(x_BD, centres_KD).argmax(dim=1)
        own_BK = torch.nn.functional.one_hot(nearest_B, len(centres_KD)).to(x_BD.dtype)
        sum_KD, mass_K = weighted_sums(x_BD, own_BK)
        centres_KD = torch.where(mass_K[:, None] > 0, unit(sum_KD), centres_KD)
    return centres_KD
