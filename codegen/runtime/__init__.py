"""How compiled Programs travel inside a TVM executable and are called from it."""
