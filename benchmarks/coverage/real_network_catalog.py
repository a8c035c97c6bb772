"""Networks as people have them, small: from transformers, timm, torchvision and others.

Each entry builds a network with random weights and batches that it takes (see `network_case`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hugging_face_networks import transformers_cases
from network_case import CLASSES, Case, cross_entropy, images, labelled, mean_square

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
