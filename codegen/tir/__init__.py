"""TVM PrimFuncs of int8 arithmetic, recognised by their structure and turned into the same graph as Relax functions."""
