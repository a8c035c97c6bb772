"""Image folders in, usable pixels out: scan, decode, audit, groups, splits, store, views, faces."""
