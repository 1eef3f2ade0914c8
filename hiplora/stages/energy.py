"""Size of a trained update, and the share of its energy ‖ΔW‖²_F inside the backbone's leading singular subspaces.

The premise of the method is that ordinary updates disturb these subspaces; every training records how much.
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

TOP = 32  # leading directions on each side, or all if a matrix has fewer
CLOSE = 1e-2  # largest residual of singular directions at which the recipe changes a share by rounding alone
BINS = 10  # quantile bins of σ, over the directions of all matrices
MOVES = 0.01  # a principal channel with a smaller share of the energy counts as still; the budget can pin it at 1e-5


def norm(updates: Mapping[str, Update]) -> float:
    """‖ΔW‖_F over all matrices."""
    return math.hypot(*(update.norm() for update in updates.values()))


def bases(model: nn.Module, names: Mapping[str, Update], svd: Svd) -> dict[str, Basis]:
    """Module name → singular directions of the backbone's weight, from the cache; computed once per backbone."""
    from hiplora.spectral import load_or_compute

    return load_or_compute(matrices(model, names), **svd.fields()).bases


def matrices(model: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    """Module name → the backbone's weight (out, in), detached."""
    from hiplora.tuner.targets import matrix_of

    return {name: matrix_of(name, model.get_submodule(name)) for name in names}


def leading(updates: Mapping[str, Update], bases: Mapping[str, Basis]) -> bool:
    """Whether ``bases`` hold the ``TOP`` leading directions of every matrix, accurately enough to measure shares.

    False for the randomised recipe, which bounds no residual (nan): its directions are off by tens of degrees.
    """
    enough = all(bases[name].k >= min(TOP, *update.shape) for name, update in updates.items())
    return enough and all(bases[name].residual <= CLOSE for name in updates)


def top_share(updates: Mapping[str, Update], bases: Mapping[str, Basis]) -> float | None:
    """Share of the update's energy inside the leading left or right singular subspaces.

    Per matrix it is ``1 − ‖(I − P_U) ΔW (I − P_V)‖² / ‖ΔW‖²``, where P_U and P_V project on the first ``TOP`` left and
    right directions; energies are summed over the matrices. None for an update of 0, or if ``bases`` are not
    :func:`leading`.
    """
    from hiplora.updates import inside

    if not leading(updates, bases):
        return None
    total = norm(updates) ** 2
    tops = {name: (bases[name].U[:, :TOP], bases[name].V[:, :TOP]) for name in updates}
    return sum(inside(update.to("cpu"), *tops[name]) for name, update in updates.items()) / total if total else None


def random_share(updates: Mapping[str, Update]) -> float | None:
    """The expected :func:`top_share` of updates with the same energies and random directions, at any rank.

    A singular vector that is uniform on the sphere has k/m of its energy in a subspace of k of m dimensions, so the
    expectation for a matrix is ``1 − (1 − k/m)(1 − k/n)``; nothing is drawn. None for an update of 0.
    """
    energies = {name: update.norm() ** 2 for name, update in updates.items()}
    total = sum(energies.values())
    chance = {name: 1 - math.prod(1 - min(TOP, side) / side for side in updates[name].shape) for name in updates}
    return sum(energies[name] * chance[name] for name in updates) / total if total else None


def channel_share(updates: Mapping[str, Update]) -> float | None:
    """The principal channels' share of the energy: Σ‖φ‖² over the sum of this and the energy of everything else.

    Everything else is the residuals beside the channels, and updates without a channel. 0 without any channel; None for
    an update of 0.
    """
    from hiplora.updates import Principal

    channels = [u for u in updates.values() if isinstance(u, Principal)]
    channel = sum(float(update.phi.double().square().sum()) for update in channels)
    rest = sum(u.residual.norm() ** 2 if u.residual else 0.0 for u in channels)
    rest += sum(u.norm() ** 2 for u in updates.values() if not isinstance(u, Principal))
    return channel / (channel + rest) if channel + rest else None


def measures(updates: Mapping[str, Update], bases: Mapping[str, Basis] | None) -> dict[str, float]:
    """``update_norm`` and the energy shares, for the record of a training; undefined ones are left out.

    So are the top shares if the directions are not accurate enough for them (:func:`leading`), or ``bases`` is None.
    """
    found = {"update_norm": norm(updates), "channel_share": channel_share(updates)}
    if bases is not None and leading(updates, bases):
        found |= {"top_share": top_share(updates, bases), "top_share_random": random_share(updates)}
    return {name: value for name, value in found.items() if value is not None}


def gains(model: nn.Module, updates: Mapping[str, Update]) -> list[Gains]:
    """The gains φ of principal channels in bins of the backbone's singular value σ_i = u_iᵀ W v_i.

    The directions of all matrices are sorted by σ and cut into ``BINS`` bins of equal size. Empty without a channel.
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
