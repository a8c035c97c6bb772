"""Classify images with an exported model: python predict_onnx.py model.onnx IMAGE..."""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def predict(session, path):
    """The most likely class of an image, and its probability."""
    meta = session.get_modelmeta().custom_metadata_map
    needs, classes = json.loads(meta["preprocessing"]), json.loads(meta["classes"])
    image, size = ImageOps.exif_transpose(Image.open(path)).convert("RGB"), needs["size"]
    if needs["resize"] == "crop":  # short side to size * 256 / 224, then the centre
        side, short = size * 256 // 224, min(image.size)
        width, height = (side * pixels // short for pixels in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = round((width - size) / 2), round((height - size) / 2)
        image = image.crop((left, top, left + size, top + size))
    image = image.resize((size, size), Image.Resampling.BILINEAR)
    x = (np.asarray(image, np.float32) / 255 - needs["mean"]) / needs["std"]
    logits = session.run(None, {"images": x.transpose(2, 0, 1)[None].astype(np.float32)})[0][0]
    odds = np.exp(logits - logits.max())
    return classes[logits.argmax()], odds.max() / odds.sum()


if __name__ == "__main__":
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    for path in sys.argv[2:]:
        print(path, "{} {:.3f}".format(*predict(session, path)))
