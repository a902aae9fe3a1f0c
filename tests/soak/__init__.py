"""The soak: real processes under steady load for minutes or hours, and then everything must be back where it was.

``python -m tests.soak --minutes 3 --seed 1``. It looks for what a single test cannot see: what stays behind each time
a little, in the server (keys that never expire), in a process (descriptors, tasks, threads, memory).
"""
