"""The options of the commands, one file per panel of `--help`."""
