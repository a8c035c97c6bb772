"""What layers receive and give: activations, input patches, gradients."""
