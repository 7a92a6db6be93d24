"""One formula in many number systems: a tape with each operation beside its derivative, and the numbers on it."""
