"""Tasks on a Ray cluster: what the driver does, and what runs on the nodes."""
