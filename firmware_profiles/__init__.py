"""What each model of box, device and relay board is like: data only, one TOML per model."""
