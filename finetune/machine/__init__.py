"""Machine: devices, processor, memory, signals and library versions."""
