"""Training of the three networks, on Lightning."""
