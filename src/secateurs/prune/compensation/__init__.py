"""What the remaining weights become: merging, least-squares refits, batch norm statistics."""
