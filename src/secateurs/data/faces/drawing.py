"""A face's identity and scene to pixels: one SVG document, then light and sensor noise."""

from __future__ import annotations

import importlib
import io
import math
import random
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from secateurs.data.faces.backdrop import SIDE
from secateurs.data.faces.scene import Identity, Light, Scene

SVG = "{http://www.w3.org/2000/svg}"
# The head's centre in the avatar's own 264 x 280 units, and the units across the picture when
# `Pose.scale` is 1: the head, 132 wide and 154 high, fills most of the frame.
HEAD = (132.0, 114.0)
SPAN = 186.0


def _library() -> Any:
    # Importing it draws from the global generator, which is its user's and not ours.
    state = random.getstate()
    try:
        return importlib.import_module("python_avatars")
    finally:
        random.setstate(state)


def _avatar(identity: Identity, scene: Scene) -> ElementTree.Element:
    parts = _library()
    look = scene.look
    brows = f"{look.eyebrows}_NATURAL" if identity.natural_brows else look.eyebrows
    tops = parts.HatType if identity.hat else parts.HairType
    # Every part is named: the library's default clothing is drawn at random.
    avatar = parts.Avatar(
        style=parts.AvatarStyle.TRANSPARENT,
        top=tops[identity.top],
        hat_color=identity.top_color,
        eyebrows=parts.EyebrowType[brows],
        eyes=parts.EyeType[look.eyes],
        nose=parts.NoseType[identity.nose],
        mouth=parts.MouthType[look.mouth],
        facial_hair=parts.FacialHairType[identity.facial_hair],
        skin_color=identity.skin,
        hair_color=identity.hair_color,
        facial_hair_color=identity.hair_color,
        accessory=parts.AccessoryType[identity.glasses],
        clothing=parts.ClothingType[identity.clothing],
        clothing_color=identity.clothing_color,
    )
    return ElementTree.fromstring(avatar.render())


def _fill_masked(root: ElementTree.Element) -> None:
    # The library colours a part by a large rectangle behind a mask, for which the renderer needs
    # a layer as large; the mask's own path, filled, looks the same at half the time in all.
    masks = {mask.get("id"): mask for mask in root.iter(f"{SVG}mask")}
    for element in root.iter(f"{SVG}g"):
        mask = masks.get(element.get("mask", "")[5:-1])  # the id in "url(#id)"
        drawn = [leaf for leaf in element.iter() if leaf.tag != f"{SVG}g"]
        if mask is None or len(mask) != 1 or [leaf.tag for leaf in drawn] != [f"{SVG}rect"]:
            continue
        for child in list(element):
            element.remove(child)
        del element.attrib["mask"]
        element.append(mask[0])


def _enlarge(root: ElementTree.Element, part: str, centre: tuple[float, float], scale: str) -> None:
    found = root.find(f".//*[@id='transparent_{part}']")
    assert found is not None, part
    x, y = centre
    moved = f"translate({x} {y}) scale({scale}) translate({-x} {-y})"
    found.set("transform", f"{found.get('transform', '')} {moved}".strip())


def compose(identity: Identity, scene: Scene) -> str:
    """The picture as one SVG document: background, posed avatar, and what stands in front."""
    root = _avatar(identity, scene)
    _fill_masked(root)
    wide, high = scene.mouth_scale
    _enlarge(root, "Face", (56, 45), f"{identity.feature_scale:.4f}")
    _enlarge(root, "Mouth", (54, 20), f"{wide:.4f} {high:.4f}")
    _enlarge(root, "Eyes", (56, 22), f"{scene.eye_scale:.4f}")
    _enlarge(root, "Eyebrow", (56, 18 + 8 * scene.brow_lift), f"{scene.brow_scale:.4f}")
    pose = scene.pose
    unit = SIDE / SPAN * pose.scale
    across = unit * identity.head_width * (-1 if pose.mirrored else 1)
    place = (
        f"translate({SIDE / 2 + pose.shift_x:.2f} {SIDE / 2 + pose.shift_y:.2f})"
        f" rotate({pose.angle_deg:.2f}) skewX({pose.shear_deg:.2f})"
        f" scale({across:.4f} {unit * identity.head_height:.4f}) translate({-HEAD[0]} {-HEAD[1]})"
    )
    # As a group instead of a nested document: its width and height would clip the pose.
    body = "".join(ElementTree.tostring(child, encoding="unicode") for child in root)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{SIDE}" height="{SIDE}">'
        f'{scene.background}<g transform="{place}">{body}</g>{scene.occlusion}</svg>'
    )


def illuminate(pixels: NDArray[np.uint8], light: Light, *, noise_seed: int) -> NDArray[np.uint8]:
    """Pixels (h, w, 3) under this light, with its sensor noise."""
    height, width = pixels.shape[:2]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)
    turn = math.radians(light.angle_deg)
    towards = x * math.cos(turn) + y * math.sin(turn)  # (h, w)
    gain = light.gain * (1 + light.slope * towards)
    gain *= 1 - light.shade / (1 + np.exp(12 * towards))
    tint = np.array([light.warmth, 1.0, 1 / light.warmth], dtype=np.float32)
    # Sums of four raw bytes, near enough to normal: raw bits are the same in every NumPy release.
    words = np.random.PCG64(noise_seed).random_raw(pixels.size // 2 + 1)
    octets = words.view(np.uint8)[: pixels.size * 4].reshape(4, *pixels.shape)
    grain = octets.astype(np.float32).sum(axis=0) - 510.0  # standard deviation 147.8
    lit = pixels * gain[:, :, None] * tint + grain * (light.noise / 147.8)
    return np.clip(lit + 0.5, 0, 255).astype(np.uint8)


def draw(identity: Identity, scene: Scene, *, noise_seed: int) -> NDArray[np.uint8]:
    """Pixels (256, 256, 3) of one picture; the same for the same arguments."""
    import resvg_py

    drawn = resvg_py.svg_to_bytes(svg_string=compose(identity, scene), skip_system_fonts=True)
    with Image.open(io.BytesIO(drawn)) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    return illuminate(pixels, scene.light, noise_seed=noise_seed)
