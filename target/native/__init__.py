"""The runtime in C: executes Programs bit for bit as the emulator's NumPy kernels do, on this machine (`library`)
and, exported, on microcontrollers."""
