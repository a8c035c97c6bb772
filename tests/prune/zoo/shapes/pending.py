"""Modules of the zoo that do not pass yet, by what is missing."""

from __future__ import annotations

_BY_CAUSE = {
    "operations without a rule": (
        "glu grid_sample largest_tokens lstm_with_projection rows_by_mask slice_places_in_place "
        "softshrink threshold unfold"
    ),
    "sums over a width that no layer reads": (
        "attention_einsum attention_linear attention_multi_query cumulative_sum "
        "layer_norm_function mixture_of_experts multihead_masked non_local "
        "norm_of_one"
    ),
    "a unit that belongs to two groups, or is weighed by one channel": (
        "attention_gate attention_pooling global_context outer_product"
    ),
    "parameters and buffers of a layer's width": (
        "attention_rotary language_model scale_unsqueezed sparse_mixture_of_experts"
    ),
    "readers that are not refitted: recurrent layers, parameters used as weights": (
        "bilinear convolution_and_gru convolution_function encoder_and_decoder gru "
        "gru_bidirectional gru_cell learned_queries linear_function lstm lstm_cell "
        "lstm_of_tokens lstm_time_first lstm_two_layers lstm_two_layers_bidirectional "
        "lstm_without_bias matmul_with_parameter rnn tied_autoencoder tied_deep_autoencoder"
    ),
    "parts that TorchScript compiled": "scripted_part",
    "norms over or along the width": "layer_norm_of_everything",
    "others": "own_cell transformer_decoder weight_norm_old",
    "embeddings, and parameters used as the weights of a layer": (
        "einsum_with_parameter tensordot_with_parameter"
    ),
    "cuts that are not what zeroing gives": "attention_head_channels",
    "maps joined along other axes, or taken apart": "mixer",
}

PENDING = {name: cause for cause, names in _BY_CAUSE.items() for name in names.split()}
