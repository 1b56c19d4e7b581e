"""From a slide's pixels to the tiles worth scoring: pure functions, arrays in and arrays out."""
