"""Where a network looked: Grad-CAM (Selvaraju et al. 2017)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from secateurs.errors import InputError
from secateurs.nets.trace import eval_mode, trace


def last_maps(model: nn.Module, *, size: int) -> str:
    """The path of the last module whose output still has positions; InputError where none has.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> last_maps(net, size=8)
    '1'
    """
    seen = trace(model, size=size)
    for path in reversed(seen.order):
        shape = seen.outputs.get(path, ())
        if path and len(shape) == 4 and shape[2] * shape[3] > 1:
            return path
    raise InputError("no layer of the network has maps of positions to show")


def grad_cam(model: nn.Module, path: str, images: Tensor, classes: Tensor) -> Tensor:
    """How much each place of an image speaks for a class: (n, height, width), float32 in 0..1.

    `path` is a module with maps (n, channels, h, w) as its output (see `last_maps`), `images`
    (n, 3, height, width), `classes` (n,) the class asked about for each image. A channel's weight
    is the mean gradient of the class's logit over its positions; the map is the positive part of
    the weighted sum (equations 1 and 2), scaled by its largest value and resized to the image. An
    image for which nothing speaks has zeros. The model keeps its modes and gets no gradient.
    """
    kept: list[Tensor] = []
    module = model.get_submodule(path)

    def keep(_: nn.Module, args: object, result: Tensor) -> Tensor:
        # A leaf of its own: what lies before needs no gradient. A ReLU behind may work in place.
        maps = result.detach().requires_grad_()
        kept.append(maps)
        return maps.clone()

    hook = module.register_forward_hook(keep)
    try:
        with eval_mode(model), torch.enable_grad():
            logits = model(images)
            asked = logits.gather(1, classes.to(logits.device)[:, None]).sum()
            (gradient,) = torch.autograd.grad(asked, kept[-1])
    finally:
        hook.remove()
    maps = kept[-1].detach()
    weights = gradient.mean((2, 3), keepdim=True)
    found = (weights * maps).sum(1, keepdim=True).relu().float()
    found = found / found.amax((2, 3), keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    sized = functional.interpolate(found, images.shape[2:], mode="bilinear", align_corners=False)
    return sized[:, 0].clamp(0, 1)
