"""Networks of transformers, small and with random weights; nothing is fetched."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from network_case import CLASSES, Case, images, mean_square, own_loss, pixels, tokens


def _hugging_face(name: str, config: str, **words: Any) -> nn.Module:
    import transformers

    return getattr(transformers, name)(getattr(transformers, config)(**words))


def transformers_cases() -> dict[str, Case]:
    """Built from configurations, nothing is fetched."""
    make = _hugging_face
    vit = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "patch_size": 8}
    vit |= {"intermediate_size": 128, "image_size": 64, "num_labels": CLASSES}
    resnet = {"embedding_size": 16, "hidden_sizes": [32, 48, 64, 96], "depths": [1, 2, 1, 1]}

    def case(*words: Any, batch: Callable[[int], Any], loss: Any = own_loss, **more: Any) -> Case:
        return Case("transformers", partial(make, *words, **more), batch, loss)

    def detection(n: int) -> dict[str, Any]:
        return {"pixel_values": images(n)}

    def masks(n: int) -> dict[str, Tensor]:
        return {"pixel_values": images(n), "labels": torch.randint(0, CLASSES, (n, 64, 64))}

    def text(n: int) -> dict[str, Tensor]:
        found = tokens(n)
        return found | {"labels": found["input_ids"]}

    def sound(n: int) -> Tensor:
        return torch.randn(n, 16, 64)

    found = {
        "ViT": case("ViTForImageClassification", "ViTConfig", batch=pixels, **vit),
        "DINOv2": case(
            *("Dinov2ForImageClassification", "Dinov2Config"),
            batch=pixels,
            **{**vit, "mlp_ratio": 2},
        ),
        "Swin": case(
            *("SwinForImageClassification", "SwinConfig"),
            batch=pixels,
            image_size=64,
            patch_size=4,
            embed_dim=24,
            depths=[2, 2],
            num_heads=[2, 4],
            window_size=4,
            num_labels=CLASSES,
        ),
        "ConvNeXt": case(
            *("ConvNextForImageClassification", "ConvNextConfig"),
            batch=pixels,
            hidden_sizes=[16, 32, 48, 64],
            depths=[1, 1, 2, 1],
            num_labels=CLASSES,
        ),
        "ResNet": case(
            *("ResNetForImageClassification", "ResNetConfig"),
            batch=pixels,
            **{**resnet, "num_labels": CLASSES},
        ),
        "RegNet": case(
            *("RegNetForImageClassification", "RegNetConfig"),
            batch=pixels,
            **{**resnet, "groups_width": 16, "hidden_sizes": [32, 48, 64, 96]},
            num_labels=CLASSES,
        ),
        "MobileNetV2": case(
            *("MobileNetV2ForImageClassification", "MobileNetV2Config"),
            batch=pixels,
            image_size=64,
            depth_multiplier=0.35,
            num_labels=CLASSES,
        ),
        "SegFormer": case(
            *("SegformerForSemanticSegmentation", "SegformerConfig"),
            batch=masks,
            hidden_sizes=[16, 32, 48, 64],
            depths=[1, 1, 1, 1],
            num_labels=CLASSES,
            num_attention_heads=[1, 2, 3, 4],
            decoder_hidden_size=48,
        ),
        "DETR": Case(
            "transformers", _detr, detection, mean_square, {"outputs": _detections}, num_samples=16
        ),
        "BERT": case(
            *("BertForSequenceClassification", "BertConfig"),
            batch=tokens,
            vocab_size=100,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=128,
            num_labels=CLASSES,
        ),
        "Llama": case(
            *("LlamaForCausalLM", "LlamaConfig"),
            batch=text,
            vocab_size=100,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=128,
        ),
        "Whisper's encoder": Case("transformers", _whisper, sound, mean_square),
    }
    return {f"transformers {name}": one for name, one in found.items()}


def _detr() -> nn.Module:
    from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

    backbone = ResNetConfig(
        embedding_size=16,
        hidden_sizes=[32, 48, 64, 96],
        depths=[1, 1, 1, 1],
        out_features=["stage4"],
    )
    config = DetrConfig(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=backbone,
        d_model=64,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        num_queries=10,
        num_labels=CLASSES,
    )
    return DetrForObjectDetection(config)


def _detections(found: Any) -> tuple[Tensor, Tensor]:
    return found.logits, found.pred_boxes


def _whisper() -> nn.Module:
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = WhisperConfig(
        num_mel_bins=16,
        d_model=64,
        encoder_layers=2,
        encoder_attention_heads=4,
        encoder_ffn_dim=128,
        max_source_positions=32,
    )
    return WhisperEncoder(config)
