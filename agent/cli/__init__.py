"""The commands that a person types; heavy libraries are imported inside a command."""
