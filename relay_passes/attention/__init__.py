"""Networks with attention in integers: what is recognised in them (`sites`, `masks`), and how they run on the chip
(`lower`, `quantize`)."""
