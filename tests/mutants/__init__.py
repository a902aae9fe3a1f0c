"""Generated mutants of every Lua script: each must be noticed by a scenario of tests.guards, or be explained."""
