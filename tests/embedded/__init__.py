"""The launcher of local servers: in one process, in several that get killed, and what it says when it cannot."""
