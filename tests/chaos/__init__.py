"""Real processes and real servers, killed, stopped and cut off at chosen moments."""
