"""Modules of the zoo that do not pass yet, by what is missing."""

from __future__ import annotations

_BY_CAUSE = {
    "parameters and buffers of a layer's width": "norm_of_one sparse_mixture_of_experts",
    "sums over a width that no layer reads": (
        "attention_linear attention_multi_query cumulative_sum layer_norm_function "
        "mixture_of_experts multihead_masked"
    ),
    "operations without a rule": "lstm_with_projection rows_by_mask",
    "parts that TorchScript compiled": "scripted_part",
    "a unit that belongs to two groups, or is weighed by one channel": (
        "learned_queries outer_product"
    ),
    "norms over or along the width": "layer_norm_of_everything",
    "others": "transformer_decoder weight_norm_old",
    "embeddings, and parameters used as the weights of a layer": (
        "einsum_with_parameter tensordot_with_parameter"
    ),
    "cuts that are not what zeroing gives": "attention_head_channels lstm_cell",
    "maps joined along other axes, or taken apart": "mixer",
}

PENDING = {name: cause for cause, names in _BY_CAUSE.items() for name in names.split()}
