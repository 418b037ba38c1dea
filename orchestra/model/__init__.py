"""What things are: frozen values and functions over them. No disk, clock, process or environment."""
