"""The proof: everything that goes wrong, in one run, with figures that have to be reached."""
