"""Which network, how deep, how small: candidates, probe, fine-tuning, sizes, one answer."""
