"""Fair times: contenders that are judged, timed in turns, and told apart only where the noise allows."""
