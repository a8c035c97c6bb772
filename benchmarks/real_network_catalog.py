"""Networks as people have them, small: from transformers, timm, torchvision and others.

Each entry builds a network with random weights and batches that it takes. Classes number 7, which
no other width is, so that a layer that gives the answer is known by it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

CLASSES = 7


@dataclass(frozen=True)
class Case:
    """A network: how it is built, its batches, and what the public calls are given beside them.

    `batch(n)` gives `n` samples; `loss(model, batch)` is its own training loss; `words` are
    keywords of `secateurs.prune`; `example` turns a batch into example inputs.
    """

    library: str
    make: Callable[[], nn.Module]
    batch: Callable[[int], Any]
    loss: Callable[[nn.Module, Any], Tensor] | None = None
    words: dict[str, Any] = field(default_factory=dict)
    num_samples: int = 32


def images(n: int, size: int = 64, channels: int = 3) -> Tensor:
    """Images (n, channels, size, size): smooth, as noise alone is no image."""
    coarse = torch.rand(n, channels, size // 8, size // 8)
    return nn.functional.interpolate(
        coarse, size=(size, size), mode="bilinear"
    ) + 0.1 * torch.randn(n, channels, size, size)


def pixels(n: int, size: int = 64) -> dict[str, Tensor]:
    """Images and labels as transformers' processors and collators give them."""
    return {"pixel_values": images(n, size), "labels": torch.randint(0, CLASSES, (n,))}


def tokens(n: int, length: int = 16, words: int = 100) -> dict[str, Tensor]:
    """Token ids with a mask and one label."""
    return {
        "input_ids": torch.randint(0, words, (n, length)),
        "attention_mask": torch.ones(n, length, dtype=torch.int64),
        "labels": torch.randint(0, CLASSES, (n,)),
    }


def own_loss(model: nn.Module, batch: dict[str, Any]) -> Tensor:
    """The loss that a model of transformers gives for its labels."""
    return model(**batch).loss


def mean_square(model: nn.Module, batch: Any) -> Tensor:
    """A loss for any output: the mean square of every number."""
    from secateurs.api.models import run_batch
    from secateurs.nets.trace import tensors_of

    found = [t for t in tensors_of(run_batch(model, batch)) if t.is_floating_point()]
    return torch.stack([part.square().mean() for part in found]).sum()


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


TIMM = {  # the size of the images, and what makes the network small
    "resnet10t": (64, {}),
    "seresnet18": (64, {}),
    "skresnet18": (64, {}),
    "resnetv2_18": (64, {}),
    "densenet121": (64, {}),
    "mobilenetv3_small_050": (64, {}),
    "mobilenetv4_conv_small_050": (64, {}),
    "lcnet_050": (64, {}),
    "tinynet_e": (64, {}),
    "mnasnet_small": (64, {}),
    "efficientnet_lite0": (64, {}),
    "tf_efficientnetv2_b0": (64, {}),
    "ghostnet_050": (64, {}),
    "rexnet_100": (64, {}),
    "regnetx_002": (64, {}),
    "regnety_002": (64, {}),
    "repvgg_a0": (64, {}),
    "dla46_c": (64, {}),
    "ese_vovnet19b_slim_dw": (64, {}),
    "hrnet_w18_small": (64, {}),
    "convnext_atto": (64, {}),
    "convnextv2_atto": (64, {}),
    "inception_next_atto": (64, {}),
    "edgenext_xx_small": (64, {}),
    "starnet_s1": (64, {}),
    "fastvit_t8": (64, {}),
    "poolformer_s12": (64, {}),
    "mobilevit_xxs": (64, {}),
    "mobilevitv2_050": (64, {}),
    "efficientvit_b0": (64, {}),
    "vit_tiny_patch16_224": (64, {"img_size": 64, "depth": 6}),
    "deit_tiny_patch16_224": (64, {"img_size": 64, "depth": 6}),
    "cait_xxs24_224": (64, {"img_size": 64, "depth": 6}),
    "eva02_tiny_patch14_224": (56, {"img_size": 56, "depth": 6}),
    "xcit_nano_12_p16_224": (64, {"img_size": 64}),
    "swin_tiny_patch4_window7_224": (
        64,
        {"img_size": 64, "window_size": 4, "embed_dim": 24, "depths": (2, 2, 2, 2)},
    ),
    "levit_128s": (224, {}),
    "mixer_s32_224": (64, {"img_size": 64}),
    "resmlp_12_224": (64, {"img_size": 64}),
    "gmlp_ti16_224": (64, {"img_size": 64}),
}


def _timm(name: str, **words: Any) -> nn.Module:
    import timm

    return timm.create_model(name, num_classes=CLASSES, **words)


def cross_entropy(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Of the logits and the labels."""
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def labelled(n: int, size: int) -> tuple[Tensor, Tensor]:
    """Images and labels as a DataLoader of a classifier gives them."""
    return images(n, size), torch.randint(0, CLASSES, (n,))


def timm_cases() -> dict[str, Case]:
    """One of each family, the smallest or made small."""
    return {
        f"timm {name}": Case(
            "timm", partial(_timm, name, **words), partial(labelled, size=size), cross_entropy
        )
        for name, (size, words) in TIMM.items()
    }


def torchvision_cases() -> dict[str, Case]:
    """Segmentation, detectors' backbones with their heads, and video."""
    from torchvision.models import detection, segmentation, video

    bare = {"weights": None, "weights_backbone": None}

    def segmented(n: int) -> tuple[Tensor, Tensor]:
        return images(n), torch.randint(0, CLASSES, (n, 64, 64))

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0])["out"], batch[1])

    def clips(n: int) -> tuple[Tensor, Tensor]:
        return torch.rand(n, 3, 4, 32, 32), torch.randint(0, CLASSES, (n,))

    def features(make: Callable[..., Any], **words: Any) -> nn.Module:
        return make(**bare, **words).backbone

    found = {
        name: Case(
            "torchvision",
            partial(getattr(segmentation, name), **bare, num_classes=CLASSES),
            segmented,
            loss,
            num_samples=16,
        )
        for name in ("lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large", "fcn_resnet50")
    }
    for name in ("ssdlite320_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_320_fpn"):
        make = partial(features, getattr(detection, name), num_classes=CLASSES)
        found[f"{name}, backbone"] = Case("torchvision", make, images, mean_square, num_samples=16)
    make = partial(features, detection.retinanet_resnet50_fpn, num_classes=CLASSES)
    found["retinanet_resnet50_fpn, backbone"] = Case(
        "torchvision", make, images, mean_square, num_samples=16
    )
    for name in ("r3d_18", "mc3_18", "r2plus1d_18"):
        make = partial(getattr(video, name), num_classes=CLASSES)
        found[name] = Case("torchvision", make, clips, cross_entropy, num_samples=16)
    return {f"torchvision {name}": one for name, one in found.items()}


def segmentation_cases() -> dict[str, Case]:
    """segmentation-models-pytorch with the smallest encoders, without weights."""

    def build(name: str, encoder: str) -> nn.Module:
        import segmentation_models_pytorch as smp

        return getattr(smp, name)(encoder, encoder_weights=None, classes=CLASSES)

    def segmented(n: int) -> tuple[Tensor, Tensor]:
        return images(n), torch.randint(0, CLASSES, (n, 64, 64))

    return {
        f"smp {name}, {encoder}": Case(
            "segmentation-models-pytorch",
            partial(build, name, encoder),
            segmented,
            cross_entropy,
            num_samples=16,
        )
        for name, encoder in (
            ("Unet", "resnet18"),
            ("UnetPlusPlus", "resnet18"),
            ("FPN", "resnet18"),
            ("DeepLabV3Plus", "resnet18"),
            ("Unet", "mobilenet_v2"),
        )
    }


class AudioNetwork(nn.Module):
    """M5 (Dai et al., 2017) on raw sound: four 1-D convolutions, and a recurrent layer."""

    def __init__(self, width: int = 32, recurrent: bool = False) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *self._block(1, width, 40, 4),
            *self._block(width, width, 3),
            *self._block(width, 2 * width, 3),
            *self._block(2 * width, 2 * width, 3),
        )
        self.gru = nn.GRU(2 * width, width, batch_first=True) if recurrent else None
        self.head = nn.Linear(width if recurrent else 2 * width, CLASSES)

    @staticmethod
    def _block(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
        conv = nn.Conv1d(inputs, outputs, kernel, stride=stride, padding=kernel // 2)
        return [conv, nn.BatchNorm1d(outputs), nn.ReLU(), nn.MaxPool1d(4)]

    def forward(self, wave: Tensor) -> Tensor:
        """Logits (samples, classes) of sound (samples, 1, length)."""
        found = self.features(wave).transpose(1, 2)
        if self.gru is not None:
            found, _ = self.gru(found)
        return self.head(found.mean(1))


def tabular() -> nn.Module:
    """A multilayer perceptron."""
    return nn.Sequential(
        *(nn.Linear(20, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Dropout(0.1)),
        *(nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, CLASSES)),
    )


def own_cases() -> dict[str, Case]:
    """Sound and tables."""

    def sound(n: int) -> tuple[Tensor, Tensor]:
        return torch.randn(n, 1, 2048), torch.randint(0, CLASSES, (n,))

    def rows(n: int) -> tuple[Tensor, Tensor]:
        return torch.randn(n, 20), torch.randint(0, CLASSES, (n,))

    return {
        "own tabular MLP": Case("", tabular, rows, cross_entropy, num_samples=256),
        "own audio, 1-D convolutions": Case("", AudioNetwork, sound, cross_entropy),
        "own audio, recurrent": Case(
            "", partial(AudioNetwork, recurrent=True), sound, cross_entropy
        ),
    }


def cases() -> dict[str, Case]:
    """Every network, those that take seconds first."""
    return {
        **own_cases(),
        **transformers_cases(),
        **segmentation_cases(),
        **torchvision_cases(),
        **timm_cases(),
    }
