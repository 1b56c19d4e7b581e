"""The networks: what they are (zoo), what they know (weights, cards), and what runs them (engines)."""
