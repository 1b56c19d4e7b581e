"""The tests; a package, so that they share what writes test slides."""
