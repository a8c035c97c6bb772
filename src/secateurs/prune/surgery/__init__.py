"""Removing units from modules, and the check that removal equals zeroing."""
