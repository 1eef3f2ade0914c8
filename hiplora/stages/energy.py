"""Where a trained update lies: its size, and its energy ‖ΔW‖²_F inside the backbone's leading singular subspaces.

The premise of the method is that ordinary updates meddle with these subspaces; every training records how far.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from hiplora.stages.results import Gains

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hiplora.spectral.options import Svd
    from hiplora.spectral.recipes import Basis
    from hiplora.updates import Update

TOP = 32  # leading directions on each side, or all where a matrix has fewer
CLOSE = 1e-2  # largest residual of directions that a share depends on by rounding alone
BINS = 10  # of σ, over the directions of all matrices
MOVES = 0.01  # least share of the energy of a principal channel that moves; the stability budget can pin it at 1e-5


def norm(updates: Mapping[str, Update]) -> float:
    """‖ΔW‖_F over all matrices."""
    return math.hypot(*(update.norm() for update in updates.values()))


def bases(model: nn.Module, names: Mapping[str, Update], svd: Svd) -> dict[str, Basis]:
    """The singular directions of the backbone's matrices of these names: from the cache, computed once per backbone."""
    from hiplora.spectral import load_or_compute

    return load_or_compute(matrices(model, names), **svd.fields()).bases


def matrices(model: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    """The backbone's weights (out, in) of these names, detached."""
    from hiplora.tuner.targets import matrix_of

    return {name: matrix_of(name, model.get_submodule(name)) for name in names}


def leading(updates: Mapping[str, Update], bases: Mapping[str, Basis]) -> bool:
    """Whether the directions are the ``TOP`` leading ones, whatever recipe they came from.

    The randomised recipe bounds no residual (nan): its directions are off by tens of degrees.
    """
    enough = all(bases[name].k >= min(TOP, *update.shape) for name, update in updates.items())
    return enough and all(bases[name].residual <= CLOSE for name in updates)


def top_share(updates: Mapping[str, Update], bases: Mapping[str, Basis]) -> float | None:
    """Share of the update's energy that leading directions of either side see.

    None for an update of 0, and where ``bases`` are not ``leading``. Per matrix that is
    ``1 − ‖(I − P_U) ΔW (I − P_V)‖² / ‖ΔW‖²``, with the projections on the first ``TOP`` left and right directions;
    energies are summed over the matrices.
    """
    from hiplora.updates import inside

    if not leading(updates, bases):
        return None
    total = norm(updates) ** 2
    tops = {name: (bases[name].U[:, :TOP], bases[name].V[:, :TOP]) for name in updates}
    return sum(inside(update.to("cpu"), *tops[name]) for name, update in updates.items()) / total if total else None


def random_share(updates: Mapping[str, Update]) -> float | None:
    """The expected ``top_share`` of updates of the same energies, of whatever rank, whose directions are random.

    Singular vectors that are uniform on the sphere have the share k/m of their energy in a subspace of k of m
    directions, so the expectation is ``1 − (1 − k/m)(1 − k/n)`` for each matrix: nothing is drawn.
    """
    energies = {name: update.norm() ** 2 for name, update in updates.items()}
    total = sum(energies.values())
    chance = {name: 1 - math.prod(1 - min(TOP, side) / side for side in updates[name].shape) for name in updates}
    return sum(energies[name] * chance[name] for name in updates) / total if total else None


def channel_share(updates: Mapping[str, Update]) -> float | None:
    """Share of the energy in principal channels, of what these and the residuals hold; 0 where there is none."""
    from hiplora.updates import Principal

    channels = [u for u in updates.values() if isinstance(u, Principal)]
    channel = sum(float(update.phi.double().square().sum()) for update in channels)
    rest = sum(u.residual.norm() ** 2 if u.residual else 0.0 for u in channels)
    rest += sum(u.norm() ** 2 for u in updates.values() if not isinstance(u, Principal))
    return channel / (channel + rest) if channel + rest else None


def measures(updates: Mapping[str, Update], bases: Mapping[str, Basis] | None) -> dict[str, float]:
    """``update_norm`` and the shares, for the record of a training.

    What is not defined is left out, and what another recipe of the singular directions would make another number.
    """
    found = {"update_norm": norm(updates), "channel_share": channel_share(updates)}
    if bases is not None and leading(updates, bases):
        found |= {"top_share": top_share(updates, bases), "top_share_random": random_share(updates)}
    return {name: value for name, value in found.items() if value is not None}


def gains(model: nn.Module, updates: Mapping[str, Update]) -> list[Gains]:
    """How far the gains φ of principal channels moved, by the singular value σ_i = u_iᵀ W v_i of the backbone.

    The directions of all matrices are sorted by σ and cut into ``BINS`` of equal numbers; none without a channel.
    """
    import torch

    from hiplora.tuner.targets import matrix_of
    from hiplora.updates import Principal

    sigma, phi = [], []
    for name, update in updates.items():
        if isinstance(update, Principal):
            weight = matrix_of(name, model.get_submodule(name)).to(update.U)
            sigma.append(((update.U.mT @ weight) * update.V.mT).sum(dim=1).cpu())
            phi.append(update.phi.cpu())
    if not sigma:
        return []
    every, moved = torch.cat(sigma).double(), torch.cat(phi).double()
    bins = every.argsort(stable=True).tensor_split(min(BINS, len(every)))
    return [
        Gains(
            sigma=float(every[each].mean()),
            size=float(moved[each].abs().mean()),
            shift=float(moved[each].mean()),
            n=len(each),
        )
        for each in bins
    ]
