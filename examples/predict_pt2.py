"""Classify images with an exported program: python predict_pt2.py model.pt2 IMAGE..."""

import json
import sys

import torch
from PIL import Image, ImageOps


def prepared(path, size, resize, mean, std, interpolation="bilinear", crop_share=224 / 256):
    """The input (1, 3, size, size) for an image."""
    image = ImageOps.exif_transpose(Image.open(path))
    if image.has_transparency_data:  # laid on white
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    method = Image.Resampling[interpolation.upper()]
    if resize == "crop":  # the short side first, then the centre
        short = int(size / crop_share + 1e-6)
        width, height = (short * side // min(image.size) for side in image.size)
        left, top = round((width - size) / 2), round((height - size) / 2)
        image = image.resize((width, height), method).crop((left, top, left + size, top + size))
    pixels = bytearray(image.resize((size, size), method).tobytes())
    x = torch.frombuffer(pixels, dtype=torch.uint8).view(size, size, 3) / 255
    return ((x - torch.tensor(mean)) / torch.tensor(std)).permute(2, 0, 1)[None]


@torch.no_grad()
def predict(program, about, path):
    """The most likely class of an image, or None for "don't know", and its probability."""
    sure = about.get("confidence", {})
    logits = program(prepared(path, **about["preprocessing"]))[0] / sure.get("temperature", 1)
    odds = logits.softmax(0)
    known = float(odds.max()) >= (sure.get("threshold") or 0)
    return about["classes"][int(odds.argmax())] if known else None, float(odds.max())


if __name__ == "__main__":
    extra = {"secateurs.json": ""}
    program = torch.export.load(sys.argv[1], extra_files=extra).module()
    about = json.loads(extra["secateurs.json"])
    for path in sys.argv[2:]:
        print(path, "{} {:.3f}".format(*predict(program, about, path)))
