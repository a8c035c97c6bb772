"""Where backbones come from, torchvision's classifiers and timm's, and files of tensors."""
