"""Work and time of the operators of a transformer on calibrated hardware (floor 4)."""
