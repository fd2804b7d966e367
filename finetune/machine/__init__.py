"""The machine: devices, versions, and what is wrong with them."""
