"""The command line; each command is the module of its name."""
