"""Modules of the zoo that do not pass yet, by what is missing."""

from __future__ import annotations

_BY_CAUSE = {
    "operations without a rule": (
        "encoder_and_decoder glu grid_sample largest_tokens rows_by_mask slice_places_in_place "
        "softshrink threshold unfold"
    ),
    "sums over a width that no layer reads": (
        "attention_einsum attention_linear attention_multi_query cumulative_sum "
        "layer_norm_function low_rank_attention mixture_of_experts multihead_masked non_local "
        "norm_of_one"
    ),
    "a unit that belongs to two groups, or is weighed by one channel": (
        "attention_gate attention_pooling global_context learned_queries outer_product"
    ),
    "other failures": (
        "bilinear convolution_and_gru convolution_function early_exit gru gru_bidirectional "
        "gru_cell linear_function lstm lstm_of_tokens lstm_time_first lstm_two_layers "
        "lstm_two_layers_bidirectional lstm_with_projection lstm_without_bias "
        "matmul_with_parameter own_cell rnn spectral_norm spectral_norm_old tied_autoencoder "
        "tied_deep_autoencoder transformer_decoder weight_norm_old"
    ),
    "parameters and buffers of a layer's width": (
        "attention_rotary language_model lstm_cell scale_unsqueezed sparse_mixture_of_experts"
    ),
    "parts that TorchScript compiled": "scripted_part",
    "norms over or along the width": "layer_norm_of_everything",
    "embeddings, and parameters used as the weights of a layer": (
        "einsum_with_parameter tensordot_with_parameter"
    ),
    "cuts that are not what zeroing gives": "attention_head_channels",
    "maps joined along other axes, or taken apart": "mixer",
}

PENDING = {name: cause for cause, names in _BY_CAUSE.items() for name in names.split()}
