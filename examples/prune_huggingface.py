"""Prune a Vision Transformer of Hugging Face transformers; needs `pip install transformers`.

The network is small, built from a configuration, so that nothing is fetched and the script takes
seconds. With your own model put `ViTForImageClassification.from_pretrained("...")` in `make`, and
your own DataLoader in the place of `batches`.
"""

import tempfile
from pathlib import Path

import torch
from transformers import ViTConfig, ViTForImageClassification

import secateurs

CONFIG = ViTConfig(
    image_size=32,
    patch_size=8,
    hidden_size=64,
    num_hidden_layers=4,
    num_attention_heads=4,
    intermediate_size=256,
    num_labels=4,
)


def make():
    """The model in its own size, as it was before pruning."""
    return ViTForImageClassification(CONFIG)


def pictures(num):
    """Stripes in four directions, in noise, with the keys that an image processor gives."""
    labels = torch.randint(0, 4, (num,))
    angle = labels[:, None, None] * torch.pi / 4
    place = torch.arange(32).float()
    along = place * torch.cos(angle) + place[:, None] * torch.sin(angle)
    stripes = torch.sin(0.8 * along + 6 * torch.rand(num, 1, 1))
    return {"pixel_values": stripes[:, None] + torch.randn(num, 3, 32, 32), "labels": labels}


def train(model, batches, epochs, lr=1e-3):
    """The training loop that you have; the model computes its loss from the labels."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr)
    model.train()
    for _ in range(epochs):
        for batch in batches:
            optimiser.zero_grad()
            model(**batch).loss.backward()
            optimiser.step()


@torch.no_grad()
def accuracy(model, batch):
    """Share of the pictures that are recognised, 0..1."""
    found = model.eval()(pixel_values=batch["pixel_values"]).logits.argmax(1)
    return float((found == batch["labels"]).float().mean())


torch.manual_seed(0)
batches, test = [pictures(32) for _ in range(8)], pictures(200)
model = make()
train(model, batches, epochs=8)

print(secateurs.inspect(model, {"pixel_values": test["pixel_values"][:2]}))
small = secateurs.prune(
    model,
    batches,  # dictionaries are given as keywords
    secateurs.Budget(macs=0.5),
    outputs=lambda out: out.logits,  # what has to be kept
    loss=lambda out, batch: out.loss,
    train=lambda pruned, unpruned: train(pruned, batches, epochs=2, lr=3e-4),
)
print(small)
print(
    f"accuracy: unpruned {accuracy(model, test):.2f}, pruned and trained on "
    f"{accuracy(small.model, test):.2f}"
)

folder = Path(tempfile.mkdtemp())
small.save(folder / "vit.safetensors")
again = secateurs.load_weights(make(), folder / "vit.safetensors").eval()
check = secateurs.export(again, folder / "vit.onnx", {"pixel_values": test["pixel_values"][:2]})
print(f"exported: {check.num_bytes} bytes, difference from PyTorch {check.difference:.1e}")
