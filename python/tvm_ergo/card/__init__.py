"""What somebody who chooses a chip asks, on one screen (`tvm-ergo card`), and what became better or worse between two
networks, builds or chips (`tvm-ergo compare`)."""
