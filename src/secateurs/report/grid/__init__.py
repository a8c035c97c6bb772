"""The page of a grid."""
