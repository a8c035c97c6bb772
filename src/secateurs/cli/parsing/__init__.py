"""How a command line is read: names, configuration files, places, and `--help`."""
