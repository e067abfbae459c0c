"""What this machine is, named devices, the timing protocol, energy, the Profile: seconds and bytes from a shape."""
