"""Recorded namespaces: what a release left in Redis, in every state a thread can be in, for the releases after it.

``tests/data/namespace-<version>.json`` is one set. It is text: each key with its type, its rest of life and its values,
streams with their groups and pending entries, made by plain commands, so that no server's dump format has to be
understood by another. `tests/integration/test_recorded.py` puts every set into a fresh server and lets the package of
today work it off.

How a release adds one: raise the version in pyproject.toml, then ``python -m tests.recorded``, and commit the new file
with the release. A set that exists is never written again, because it says what a release really left behind; only
while a version is not released yet, and its layout changes, its file is deleted by hand and recorded anew.
"""
