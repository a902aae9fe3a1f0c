"""Guard mutants: each guard of each Lua script is broken in turn, and a scenario must notice (reliability.md, L1)."""
