"""What a command can be told: the settings of every script, their ranges, and how flags and TOML files are read.

A *part* is a small dataclass of settings that belong together (`Images`, `Sampling`, `Loop`); each field is made by
`option`, with its help, default and range. A script names the parts that it reads, and flags and TOML files stay flat:

    config = read(argv, parts)       config[Loop].lr        a function takes the part, or the two values, that it needs
"""

from config.option import option
from config.read import Config, check_unread, given, read, read_toml, run_script, to_toml
from config.usage import usage

__all__ = ["Config", "check_unread", "given", "option", "read", "read_toml", "run_script", "to_toml", "usage"]
