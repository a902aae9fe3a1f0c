"""``python -m streambatch`` is the command line."""

from __future__ import annotations

from streambatch.cli import main

if __name__ == "__main__":
    main()
