"""What other methods make of the weights once it is known which units stay.

Each takes the unpruned network, its groups and the units that stay, and returns a narrowed network.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from choices import filters
from torch import Tensor, nn

from secateurs.nets.batches import forward
from secateurs.nets.layers import BATCH_NORMS, LAYERS, channel_axis, kernel_of, matrix, write_matrix
from secateurs.nets.trace import eval_mode
from secateurs.prune.allocation.survey import norms_after
from secateurs.prune.coupling.groups import Group, Member
from secateurs.prune.surgery.narrow import narrow

Survivors = Mapping[str, Tensor]
RIDGE = 1e-3  # GRAIL's and CORP's, of the mean of the diagonal
DAMPING = 1e-2  # OBSPA's, likewise
NEAR, COSINES = 0.45, 0.85  # Neuron Merging's threshold and the weight of the cosine


class Received:
    """Sums over what layers receive, by channel: outer products (channels, channels) and means."""

    def __init__(self, model: nn.Module, paths: Sequence[str], batches: Sequence[Tensor]) -> None:
        self.gram: dict[str, Tensor] = {}
        self.total: dict[str, Tensor] = {}
        self.num = dict.fromkeys(paths, 0)
        self.norms = norms_after(model, batches[0][:1], run=forward)
        handles = [
            model.get_submodule(path).register_forward_pre_hook(self._note(path)) for path in paths
        ]
        with torch.no_grad(), eval_mode(model):
            for batch in batches:
                model(batch)
        for handle in handles:
            handle.remove()

    def _note(self, path: str) -> Callable[..., None]:
        def hook(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
            rows = args[0].movedim(channel_axis(layer), -1).flatten(0, -2).double()
            self.gram[path] = self.gram.get(path, 0) + rows.T @ rows
            self.total[path] = self.total.get(path, 0) + rows.sum(0)
            self.num[path] += len(rows)

        return hook

    def second(self, path: str) -> Tensor:
        """Uncentred second moments (channels, channels)."""
        return self.gram[path] / self.num[path]

    def mean(self, path: str) -> Tensor:
        """Means (channels,)."""
        return self.total[path] / self.num[path]

    def covariance(self, path: str) -> Tensor:
        """Centred second moments (channels, channels)."""
        mean = self.mean(path)
        return self.second(path) - mean[:, None] * mean


def readers(groups: Sequence[Group], gone: Survivors) -> list[tuple[Group, Member]]:
    """The layers that read groups that are cut."""
    return [(g, member) for g in groups if g.name in gone for member in g.side("in")]


def reader_paths(groups: Sequence[Group]) -> list[str]:
    """Their paths, each once."""
    return list(dict.fromkeys(member.path for group in groups for member in group.side("in")))


def stays(member: Member, units: Tensor) -> Tensor:
    """Which of a member's channels belong to units that stay, (channels,)."""
    return torch.isin(member.unit, units)


def mapped(layer: nn.Module, member: Member, rest: Tensor, back: Tensor) -> None:
    """Let a layer read only some of a member's channels: its weights times `back`.

    `back` (channels, channels that stay) rebuilds all channels from those that stay.
    """
    kernel = int(np.prod(kernel_of(layer)))
    weight = matrix(layer).detach().unflatten(1, (-1, kernel)).clone()
    new = torch.einsum("oik,ij->ojk", weight[:, member.index].double(), back)
    weight[:, member.index[rest]] = new.to(weight)
    write_matrix(layer, weight.flatten(1))


def ridge_map(gram: Tensor, rest: Tensor, ridge: float = RIDGE) -> Tensor:
    """GRAIL's B = G R' (R G R' + lambda I)^-1, lambda a part of the mean diagonal."""
    own = gram[rest][:, rest]
    lift = ridge * gram.diagonal().mean() * torch.eye(len(own), dtype=own.dtype)
    return torch.linalg.solve(own + lift, gram[:, rest].T).T


def plain(model: nn.Module, groups: Sequence[Group], units: Survivors) -> nn.Module:
    """The weights as they were."""
    return narrow(model, groups, units)


def grail(model: nn.Module, groups: Sequence[Group], units: Survivors, seen: Received) -> nn.Module:
    """GRAIL (2026): each reader of the channels that stay gets what rebuilds all by ridge."""
    work = copy.deepcopy(model)
    for group, member in readers(groups, units):
        rest = stays(member, units[group.name])
        own = seen.second(member.path)[member.index][:, member.index]
        mapped(work.get_submodule(member.path), member, rest, ridge_map(own, rest))
    return narrow(work, groups, units)


def corp(model: nn.Module, groups: Sequence[Group], units: Survivors, seen: Received) -> nn.Module:
    """CORP (2026): affine, x of all from x of the rest, by ridge on the covariance."""
    work = copy.deepcopy(model)
    for group, member in readers(groups, units):
        layer = work.get_submodule(member.path)
        assert isinstance(layer, LAYERS)
        rest = stays(member, units[group.name])
        own = seen.covariance(member.path)[member.index][:, member.index]
        back = ridge_map(own, rest)
        mean = seen.mean(member.path)[member.index]
        missing = mean - back @ mean[rest]  # (channels,), the same at all places
        weight = matrix(layer).detach().unflatten(1, (-1, int(np.prod(kernel_of(layer)))))
        offset = weight[:, member.index].double().sum(2) @ missing
        with torch.no_grad():
            if layer.bias is not None:
                layer.bias.add_(offset.to(layer.bias))
            elif member.path in seen.norms:  # in front of its mean
                mean = work.get_submodule(seen.norms[member.path]).running_mean
                assert isinstance(mean, Tensor)
                mean.sub_(offset.to(mean))
        mapped(layer, member, rest, back)
    return narrow(work, groups, units)


def obspa_scores(model: nn.Module, groups: Sequence[Group], seen: Received) -> dict[str, Tensor]:
    """OBSPA: squared weights over the diagonal of the inverse Hessian, summed over a unit's."""
    found: dict[str, Tensor] = {}
    for group in groups:
        score = torch.zeros(group.num_units, dtype=torch.float64)
        for member in group.side("in"):
            layer = model.get_submodule(member.path)
            weight = matrix(layer).detach().unflatten(1, (-1, int(np.prod(kernel_of(layer)))))
            squares = weight.double().square().sum((0, 2))
            inverse = torch.linalg.inv(_damped(seen.second(member.path)))
            score.index_add_(0, member.unit, (squares / inverse.diagonal())[member.index])
        found[group.name] = score
    return found


def obspa(model: nn.Module, groups: Sequence[Group], units: Survivors, seen: Received) -> nn.Module:
    """OBSPA: the optimal brain surgeon's update of what stays, all removed channels at once."""
    work = copy.deepcopy(model)
    for group, member in readers(groups, units):
        rest = stays(member, units[group.name])
        inverse = torch.linalg.inv(_damped(seen.second(member.path)[member.index][:, member.index]))
        back = torch.zeros(len(rest), int(rest.sum()), dtype=torch.float64)
        back[rest] = torch.eye(int(rest.sum()), dtype=torch.float64)
        # w_rest - w_gone (H^-1_gone,gone)^-1 H^-1_gone,rest
        back[~rest] = -torch.linalg.solve(inverse[~rest][:, ~rest], inverse[~rest][:, rest])
        mapped(work.get_submodule(member.path), member, rest, back)
    return narrow(work, groups, units)


def _damped(gram: Tensor) -> Tensor:
    return gram + DAMPING * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)


def clusters(rows: Tensor, num: int, *, seed: int = 0) -> Tensor:
    """The cluster (units,) of each filter by k-means; every cluster has one."""
    from sklearn.cluster import KMeans

    found: Any = KMeans(num, random_state=seed).fit(rows.double().cpu().numpy())
    labels = torch.from_numpy(found.labels_).long()
    _, labels = labels.unique(return_inverse=True)
    return labels


def fold_clusters(
    model: nn.Module, groups: Sequence[Group], kept: Mapping[str, int]
) -> dict[str, Tensor]:
    """Model folding's clusters: k-means on the filters with their batch norm's scale (2025)."""
    found: dict[str, Tensor] = {}
    for group in groups:
        if kept[group.name] < group.num_units:
            scale = torch.ones(group.num_units)
            for member in group.side("both"):
                norm = model.get_submodule(member.path)
                if isinstance(norm, BATCH_NORMS) and norm.running_var is not None:
                    gain = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
                    scale[member.unit] = gain[member.index].cpu()
            found[group.name] = clusters(filters(model, group) * scale[:, None], kept[group.name])
    return found


def folded(
    model: nn.Module,
    groups: Sequence[Group],
    assigned: Mapping[str, Tensor],
    seen: Received | None = None,
) -> tuple[nn.Module, dict[str, Tensor]]:
    """Model folding: means of what makes a cluster, the reader's weights summed.

    With `seen` the readers get GRAIL's map from the folded channels instead of the sums. Returns
    the network and one unit of each cluster, under whose place it lives on.
    """
    work = copy.deepcopy(model)
    units: dict[str, Tensor] = {}
    for group in groups:
        if group.name not in assigned:
            continue
        label = assigned[group.name]
        count = int(label.max()) + 1
        first = torch.stack([(label == k).nonzero()[0, 0] for k in range(count)])
        units[group.name] = first.sort().values
        mean = torch.zeros(count, group.num_units, dtype=torch.float64)
        mean[label, torch.arange(group.num_units)] = 1
        mean /= mean.sum(1, keepdim=True)
        for member in group.members:
            _fold(work, member, label, first, mean, seen)
    return narrow(work, groups, units), units


@torch.no_grad()
def _fold(
    work: nn.Module,
    member: Member,
    label: Tensor,
    first: Tensor,
    mean: Tensor,
    seen: Received | None,
) -> None:
    module = work.get_submodule(member.path)
    each = len(member.index) // len(label)
    order = member.unit.argsort(stable=True)
    index = member.index[order].view(-1, each)  # (units, channels of each)
    if member.side == "in":
        rest = torch.isin(member.unit, first)
        whole = torch.zeros(len(member.unit), len(member.unit), dtype=torch.float64)
        slot = torch.arange(each).repeat(len(label))  # which channel of its unit, in unit order
        place = torch.empty_like(order)
        place[order] = slot
        same = (label[member.unit][:, None] == label[member.unit]) & (place[:, None] == place)
        whole[:] = same.double()  # of all channels those that live on as one
        back = whole[:, rest]
        if seen is not None:
            gram = seen.second(member.path)[member.index][:, member.index]
            fold = back.T / back.sum(0)[:, None]  # means over a cluster
            own = fold @ gram @ fold.T
            lift = RIDGE * gram.diagonal().mean() * torch.eye(len(own), dtype=own.dtype)
            back = torch.linalg.solve(own + lift, fold @ gram).T
        mapped(module, member, rest, back)
        return
    tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    width = len(getattr(module, "weight", tensors[0]))
    for tensor in tensors:
        if tensor.ndim and len(tensor) == width:
            rows = tensor[index].flatten(1).double()  # (units, values)
            tensor[index[first]] = (
                (mean @ rows).view(len(first), *tensor[index].shape[1:]).to(tensor)
            )


def neuron_merging(model: nn.Module, groups: Sequence[Group], units: Survivors) -> nn.Module:
    """Neuron Merging (2020): removed filters as scaled copies of the nearest that stay."""
    work = copy.deepcopy(model)
    for group in groups:
        if group.name not in units or len(units[group.name]) == group.num_units:
            continue
        scaling = merging_matrix(filters(model, group), units[group.name], _norm_of(model, group))
        for member in group.side("in"):
            rest = stays(member, units[group.name])
            column = {int(unit): k for k, unit in enumerate(units[group.name])}
            back = torch.zeros(len(member.unit), int(rest.sum()), dtype=torch.float64)
            each = len(member.unit) // group.num_units
            for place, channel in enumerate(rest.nonzero().flatten().tolist()):
                k = column[int(member.unit[channel])]
                slot = _slot(member, channel, each)
                for other in range(len(member.unit)):
                    if _slot(member, other, each) == slot:
                        back[other, place] = scaling[int(member.unit[other]), k]
            mapped(work.get_submodule(member.path), member, rest, back)
    return narrow(work, groups, units)


def _slot(member: Member, channel: int, each: int) -> int:
    """Which of its unit's channels one is."""
    if each == 1:
        return 0
    own = (member.unit == member.unit[channel]).nonzero().flatten()
    return int((own == channel).nonzero()[0, 0])


def _norm_of(model: nn.Module, group: Group) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """Scale, offset, mean and deviation of the batch norm after a group's units, by unit."""
    for member in group.side("both"):
        norm = model.get_submodule(member.path)
        if isinstance(norm, BATCH_NORMS) and len(member.index) == group.num_units:
            order = member.index[member.unit.argsort()]
            assert norm.running_mean is not None and norm.running_var is not None
            deviation = (norm.running_var + norm.eps).sqrt()
            parts = (norm.weight, norm.bias, norm.running_mean, deviation)
            scale, offset, mean, spread = (part.detach()[order].double() for part in parts)
            return scale, offset, mean, spread
    return None


def merging_matrix(
    rows: Tensor, kept: Tensor, norm: tuple[Tensor, Tensor, Tensor, Tensor] | None
) -> Tensor:
    """What each unit is of those kept, (units, kept): 1 for itself, a scale for the nearest.

    Nearest by `COSINES` times the cosine distance and the rest by the offset that the batch norm
    leaves, scaled to 0..1; none where the cosine is below `NEAR`.
    """
    rows = rows.double()
    length = rows.norm(dim=1).clamp(min=1e-30)
    cosine = (rows / length[:, None]) @ (rows[kept] / length[kept][:, None]).T
    scale = length[:, None] / length[kept]
    distance = 1 - cosine
    if norm is not None:
        gain, offset, mean, deviation = norm
        through = gain[:, None] / gain[kept] * deviation[kept] / deviation[:, None]
        before = scale * (mean[kept] - deviation[kept] * offset[kept] / gain[kept])
        left = (gain / deviation)[:, None] * (before - mean[:, None]) + offset[:, None]
        left = left.abs()
        low, high = left.amin(1, keepdim=True), left.amax(1, keepdim=True)
        distance = COSINES * distance + (1 - COSINES) * (left - low) / (high - low).clamp(min=1e-30)
        scale = scale * through
    found = torch.zeros(len(rows), len(kept), dtype=torch.float64)
    nearest = distance.argmin(1)
    units = torch.arange(len(rows))
    near = cosine[units, nearest] >= NEAR
    found[units[near], nearest[near]] = scale[units, nearest][near]
    found[kept] = torch.eye(len(kept), dtype=torch.float64)
    return found
