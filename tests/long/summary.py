"""What a long trial found, as a JSON file that a page quotes: the command, the machine, the seconds, the counts."""

import json
import os
import platform
import re
import time
from pathlib import Path

import torch


def machine() -> str:
    """ "2 cores of AMD EPYC, Linux, torch 2.13.0"."""
    text = Path("/proc/cpuinfo").read_text() if os.path.exists("/proc/cpuinfo") else ""
    found = re.search(r"model name\s*: (.+)", text)
    name = found[1] if found else platform.machine()
    return f"{os.cpu_count()} cores of {name}, {platform.system()}, torch {torch.__version__}"


def write_summary(path: str | Path | None, command: str, began: float, found: dict, quiet: bool = False) -> None:
    """Print the summary, and write it to the file if one is named. began: of time.monotonic; quiet: print nothing."""
    seconds = round(time.monotonic() - began)
    text = json.dumps({"command": command, "machine": machine(), "seconds": seconds} | found, indent=1)
    if not quiet:
        print(text)
    if path:
        Path(path).write_text(text + "\n")
