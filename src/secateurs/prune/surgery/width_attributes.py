"""What layers say of their own widths, read from their tensors and written to their attributes."""

from __future__ import annotations

from torch import Tensor, nn

from secateurs.nets.layers import LAYERS, set_layer_widths

CHANNELS = {  # the attribute with the channels of modules that may have no tensor
    nn.GroupNorm: "num_channels",
    nn.PReLU: "num_parameters",
    nn.modules.batchnorm._NormBase: "num_features",  # pyright: ignore[reportPrivateUsage]
}


def channels_of(module: nn.Module) -> int | None:
    """The channels that a norm says it has; None for modules that say nothing."""
    for kind, name in CHANNELS.items():
        if isinstance(module, kind):
            return int(getattr(module, name))
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        return int(module.normalized_shape[0])
    return None


def set_widths(layer: nn.Module, width: int | None = None) -> None:
    """Tell a layer the widths that its tensors have; `width` is that of a norm without tensors."""
    if isinstance(layer, LAYERS):
        set_layer_widths(layer)
    elif isinstance(layer, nn.Embedding | nn.EmbeddingBag):
        layer.num_embeddings, layer.embedding_dim = layer.weight.shape
    elif isinstance(layer, nn.RNNBase):
        own = dict(layer.named_parameters(recurse=False))
        layer.input_size = own["weight_ih_l0"].shape[1]
        layer.hidden_size = own.get("weight_hr_l0", own["weight_hh_l0"]).shape[1]
    elif isinstance(layer, nn.RNNCellBase):
        layer.input_size, layer.hidden_size = layer.weight_ih.shape[1], layer.weight_hh.shape[1]
    elif isinstance(layer, nn.Bilinear):
        layer.out_features, layer.in1_features, layer.in2_features = layer.weight.shape
    else:
        _set_channels(layer, width)


def _set_channels(layer: nn.Module, width: int | None) -> None:
    if channels_of(layer) is None:
        return  # a module with parameters of its own, or attention that reads its heads
    for tensor in (layer.weight, getattr(layer, "running_mean", None)):
        if isinstance(tensor, Tensor):
            width = len(tensor)
    if width is not None:
        set_channels(layer, width)


def set_channels(layer: nn.Module, width: int) -> None:
    """Tell a norm how many channels it has; of one with groups whole groups have gone.

    >>> norm = nn.GroupNorm(4, 16)
    >>> set_channels(norm, 12)
    >>> norm.num_groups
    3
    """
    before = channels_of(layer)
    assert before is not None
    if isinstance(layer, nn.LayerNorm | nn.RMSNorm):
        layer.normalized_shape = (width, *layer.normalized_shape[1:])
        return
    if isinstance(layer, nn.GroupNorm) and layer.num_groups > 1:
        layer.num_groups = layer.num_groups * width // before
    for kind, name in CHANNELS.items():
        if isinstance(layer, kind):
            setattr(layer, name, width)
