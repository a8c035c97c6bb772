"""Classify images with an exported model: python predict_litert.py model.tflite IMAGE..."""

import json
import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
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
    x = np.asarray(image.resize((size, size), method), np.float32) / 255
    return ((x - mean) / std).transpose(2, 0, 1)[None].astype(np.float32)


def predict(model, about, path):
    """The most likely class of an image, or None for "don't know", and its probability."""
    sure = about["confidence"]
    model.set_tensor(
        model.get_input_details()[0]["index"], prepared(path, **about["preprocessing"])
    )
    model.invoke()
    logits = model.get_tensor(model.get_output_details()[0]["index"])[0] / sure["temperature"]
    odds = np.exp(logits - logits.max())
    odds /= odds.sum()
    known = odds.max() >= (sure["threshold"] or 0)
    return about["classes"][odds.argmax()] if known else None, odds.max()


if __name__ == "__main__":
    model = Interpreter(sys.argv[1])
    model.allocate_tensors()
    about = json.loads(Path(f"{sys.argv[1]}.json").read_text(encoding="utf-8"))
    for path in sys.argv[2:]:
        print(path, "{} {:.3f}".format(*predict(model, about, path)))
