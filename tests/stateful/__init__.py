"""Random lives of a few threads against an oracle in plain Python, on a real server, with a hostile alphabet."""
