"""What else could explain a result: shortcuts, site, unstable tiles. Each audit ends in one plain sentence."""
