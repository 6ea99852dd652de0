"""The sparse engine: how rows are dealt to its processing elements, and how long a matrix-vector product takes."""
