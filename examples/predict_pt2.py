"""Classify images with an exported program: python predict_pt2.py model.pt2 IMAGE..."""

import json
import sys

import torch
from PIL import Image, ImageOps


@torch.no_grad()
def predict(program, about, path):
    """The most likely class of an image, and its probability."""
    needs = about["preprocessing"]
    image, size = ImageOps.exif_transpose(Image.open(path)).convert("RGB"), needs["size"]
    if needs["resize"] == "crop":  # short side to size * 256 / 224, then the centre
        side, short = size * 256 // 224, min(image.size)
        width, height = (side * pixels // short for pixels in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = round((width - size) / 2), round((height - size) / 2)
        image = image.crop((left, top, left + size, top + size))
    image = image.resize((size, size), Image.Resampling.BILINEAR)
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    x = pixels.view(size, size, 3) / 255 - torch.tensor(needs["mean"])
    x = (x / torch.tensor(needs["std"])).permute(2, 0, 1)[None]
    odds = program(x)[0].softmax(0)
    return about["classes"][int(odds.argmax())], float(odds.max())


if __name__ == "__main__":
    extra = {"secateurs.json": ""}
    program = torch.export.load(sys.argv[1], extra_files=extra).module()
    about = json.loads(extra["secateurs.json"])
    for path in sys.argv[2:]:
        print(path, "{} {:.3f}".format(*predict(program, about, path)))
