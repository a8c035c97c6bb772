"""On macOS, not run elsewhere: python predict_coreml.py model.mlpackage IMAGE..."""

import json
import sys

import coremltools
import numpy as np
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
    found = model.predict({"images": prepared(path, **about["preprocessing"])})
    logits = found["logits"][0] / sure["temperature"]
    odds = np.exp(logits - logits.max())
    odds /= odds.sum()
    known = odds.max() >= (sure["threshold"] or 0)
    return about["classes"][odds.argmax()] if known else None, odds.max()


if __name__ == "__main__":
    model = coremltools.models.MLModel(sys.argv[1])
    about = json.loads(model.user_defined_metadata["secateurs"])
    for path in sys.argv[2:]:
        print(path, "{} {:.3f}".format(*predict(model, about, path)))
