"""Modules of the zoo that do not pass yet, by what is missing."""

from __future__ import annotations

_BY_CAUSE = {
    "operations without a rule": (
        "bilinear glu grid_sample largest_tokens prelu prelu_of_one slice_places_in_place "
        "softshrink threshold unfold"
    ),
    "sums over a width that no layer reads": (
        "attention_einsum attention_linear attention_multi_query layer_norm_function "
        "learned_queries low_rank_attention mixture_of_experts multihead_masked non_local "
        "norm_of_one"
    ),
    "layers that run more than once": (
        "cbam convolutional_gru multihead_cross one_module_two_names own_cell "
        "recurrent_refinement shared_block shared_convolution shared_detector_head "
        "shared_layer_own_norms siamese siamese_joined siamese_unbound"
    ),
    "a unit that belongs to two groups, or is weighed by one channel": (
        "attention_gate attention_pooling global_context outer_product"
    ),
    "values that decide what runs": (
        "branch_on_mean check_of_values early_exit loop_of_unknown_length rows_by_mask "
        "scale_by_item sparse_mixture_of_experts values_as_list"
    ),
    "maps joined along other axes, or taken apart": (
        "cat_places cat_tokens generator mixer pixel_shuffle"
    ),
    "embeddings, and parameters used as the weights of a layer": (
        "convolution_function einsum_with_parameter embedding embedding_bag "
        "embedding_with_padding linear_function lstm_of_tokens matmul_with_parameter tabular "
        "tensordot_with_parameter text_convolution tied_layers two_towers"
    ),
    "parts that TorchScript compiled": "scripted_part",
    "parameters and buffers of a layer's width": (
        "attention_relative_bias attention_rotary buffer_mask channels_last_scale class_token "
        "convnext language_model layer_scale list_of_parameters mean_and_deviation "
        "position_buffer position_embedding position_embedding_sliced scale_by_place "
        "scale_exponential scale_indexed_with_none scale_of_a_row scale_of_four_axes "
        "scale_reshaped scale_transposed scale_unsqueezed tied_embedding token_scale "
        "transformer_decoder vision_transformer"
    ),
    "norms over or along the width": (
        "group_norm group_norm_by_channel group_norm_of_one instance_norm instance_norm3d "
        "instance_norm_affine instance_norm_statistics layer_norm layer_norm_not_affine "
        "layer_norm_of_everything layer_norm_of_maps normed_pyramid rms_norm"
    ),
    "norms with parameters of the module's own": "batch_norm_function",
    "other failures": "spectral_norm_old weight_norm_old",
    "recurrent layers, and weights in other forms": (
        "convolution_and_gru encoder_and_decoder gru gru_bidirectional gru_cell lstm lstm_cell "
        "lstm_time_first lstm_two_layers lstm_two_layers_bidirectional lstm_with_projection "
        "lstm_without_bias rnn tied_autoencoder tied_deep_autoencoder"
    ),
    "cuts that are not what zeroing gives": "attention_head_channels",
}

PENDING = {name: cause for cause, names in _BY_CAUSE.items() for name in names.split()}
