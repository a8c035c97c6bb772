"""JSON records that are read back: kinds, checksums, fields checked against types."""
