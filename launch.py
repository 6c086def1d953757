"""From the command line to a config: defaults < TOML file < flags, every key and type checked.

A config is a flat dataclass with one field a line; the comment on the line is the flag's help. `--name value` sets a
field, `--name` alone a boolean one, and a list field (`adapter: list[str]`) takes the flag several times.
"""

import dataclasses
import difflib
import inspect
import re
import sys
import tomllib
import typing
from pathlib import Path

import torch

try:
    import resource
except ImportError:  # Windows has none
    resource = None


def configure(kind, argv=None):
    """Build `kind` from [CONFIG.toml] and flags; -h prints the fields. ValueError names a wrong key, type or file."""
    return kind(**given(kind, argv))


def given(kind, argv=None):
    """Only what the command line says: the values of [CONFIG.toml], overridden by the flags."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if "-h" in argv or "--help" in argv:
        print(usage(kind))
        sys.exit(0)
    values = read_toml(kind, argv.pop(0)) if argv and not argv[0].startswith("-") else {}
    return values | read_flags(kind, argv)


def read_toml(kind, path):
    """The table of a TOML file, each value of its field's type."""
    try:
        table = tomllib.loads(Path(path).read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"config file {path}: {error}") from error
    for key, value in table.items():
        wanted = field_type(kind, key, f"{path}: ")
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            table[key] = float(value)
        elif wanted == list[str]:
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                raise ValueError(f"{path}: {key} must be a list of strings, found {value!r}")
        elif type(value) is not wanted:
            raise ValueError(f"{path}: {key} must be {wanted.__name__}, found {value!r}")
    return table


def read_flags(kind, argv):
    """`--key value` pairs as values of the fields' types."""
    values, position = {}, 0
    while position < len(argv):
        flag = argv[position]
        if not flag.startswith("--"):
            raise ValueError(f"expected a flag such as --{dataclasses.fields(kind)[0].name}, found {flag!r}")
        key, equals, value = flag[2:].partition("=")
        key = key.replace("-", "_")
        wanted = field_type(kind, key, "")
        if wanted is bool and not equals:
            value = "true"
        elif not equals:
            position += 1
            if position == len(argv):
                raise ValueError(f"--{key} needs a value of type {getattr(wanted, '__name__', wanted)}")
            value = argv[position]
        if wanted == list[str]:
            values.setdefault(key, []).append(value)
        else:
            values[key] = parse(wanted, key, value)
        position += 1
    return values


def parse(wanted, key, text):
    """Text of a flag -> str, int, float or bool."""
    if wanted is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"--{key} must be true or false, found {text!r}")
        return text.lower() == "true"
    try:
        return wanted(text)
    except ValueError:
        raise ValueError(f"--{key} must be {wanted.__name__}, found {text!r}") from None


def field_type(kind, key, where):
    """The type of a field, or one sentence with the nearest field there is."""
    hints = typing.get_type_hints(kind)
    if key not in hints:
        near = difflib.get_close_matches(key, hints, n=1, cutoff=0)
        raise ValueError(f"{where}unknown key {key!r}; did you mean {near[0]!r}?")
    return hints[key]


def usage(kind):
    """One line a field: flag, default, and the comment beside it in the source."""
    source = inspect.getsource(kind)
    lines = [inspect.getdoc(sys.modules[kind.__module__]) or "", ""]
    for field in dataclasses.fields(kind):
        comment = re.search(rf"^    {field.name}:.*?  # (.*)$", source, re.M)
        default = field.default if field.default is not dataclasses.MISSING else field.default_factory()
        flag = field.name.replace("_", "-")
        lines.append(f"  --{flag:<13} {comment.group(1) if comment else ''} [{default}]")
    return "\n".join(lines)


def to_toml(config):
    """The config as TOML text that `configure` reads back to the same values."""

    def literal(value):
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, list):
            return "[" + ", ".join(map(literal, value)) + "]"
        if isinstance(value, str):
            escaped = value.replace("\\", "\\\\").replace('"', '\\"')
            return f'"{escaped}"'
        return repr(value)

    return "".join(f"{key} = {literal(value)}\n" for key, value in dataclasses.asdict(config).items())


def device(name):
    """ "auto" -> cuda, mps or cpu, whichever is there first; otherwise the device of that name."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def bf16(name, where):
    """ "auto" | "fp32" | "bf16" -> whether to autocast to bfloat16: auto does where the device multiplies in it."""
    if name not in ("auto", "fp32", "bf16"):
        raise ValueError(f"precision must be auto, fp32 or bf16, found {name!r}")
    if name != "auto":
        return name == "bf16"
    if where.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return where.type == "cpu" and has_cpu_bf16()


def has_cpu_bf16():
    """Whether this processor has bfloat16 matrix instructions; without, autocast on a CPU is slower than float32."""
    capability = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return bool(capability())


def peak_gib(where):
    """The most memory that this process has held so far: what torch took of a GPU, else what is resident, in GiB.

    None on Windows, which does not tell it.
    """
    if where.type == "cuda":
        return torch.cuda.max_memory_allocated(where) / 2**30
    if resource is None:
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def keyed(*numbers):
    """A CPU generator whose stream is a function of the numbers alone, for example keyed(seed, step)."""
    return torch.Generator().manual_seed(key(*numbers))


def key(*numbers):
    """One number from several, mixed by SplitMix64's finaliser (Steele et al. 2014): neighbours are unrelated."""
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) % 2**64
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ state >> 27) * 0x94D049BB133111EB % 2**64
        state ^= state >> 31
    return state % 2**63
