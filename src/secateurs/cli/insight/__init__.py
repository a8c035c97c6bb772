"""Commands about images and models beyond accuracy: views, probe, trust, comparison."""
