"""Post-processing on the chip's CPU, in NumPy: what ``target/native/post`` computes in C, to the bit."""
