"""Rules that rewrite ONNX nodes into operators TVM's importer reads as ONNX means them; one family a file."""
