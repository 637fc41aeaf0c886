"""Models that ship, one TOML file each."""
