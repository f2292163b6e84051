"""An unmodified Django that sends: each line of its input is a list of [group, event], sent all at once with group_send;
after each line it says so. Its channel layer is configured by the first line, as a project's settings would.
"""
import asyncio
import json
import sys

import django
from channels.layers import get_channel_layer
from django.conf import settings

settings.configure(CHANNEL_LAYERS={"default": json.loads(sys.stdin.readline())})
django.setup()


async def main():
    layer = get_channel_layer()
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        await asyncio.gather(*(layer.group_send(group, event) for group, event in json.loads(line)))
        print("sent", flush=True)


asyncio.run(main())
