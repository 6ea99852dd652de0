"""One file a parser: `TARGET`."""
