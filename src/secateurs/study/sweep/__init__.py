"""The sweep over depths: trials, statistics, comparison, recommendation."""
