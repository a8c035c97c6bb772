"""The probe: what every depth of a network knows about images, without training."""
