"""Small TFLite files written tensor by tensor, LiteRT as their reference, and what of every operator is checked with
them."""
