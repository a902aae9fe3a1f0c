"""Run a Discord bot against the server at DISCORD_API: `python -m tests.bots.discord_here examples/discord_bot.py`.

discord.py has no setting for its two addresses, so they are changed here; nothing else of it or of the bot is.
"""

from __future__ import annotations

import os
import runpy
import sys

import yarl
from discord.gateway import DiscordWebSocket
from discord.http import Route

Route.BASE = os.environ["DISCORD_API"]
DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(os.environ["DISCORD_API"].replace("http", "ws"))
runpy.run_path(sys.argv[1], run_name="__main__")
