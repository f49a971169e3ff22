"""Every regular expression takes time in proportion to the length of its text, whatever that is.

`tests.steps` counts lines of Python, of which a regular expression is one. So all of them are run
on texts that repeat what they look for, in a process with a limit of CPU time.
"""

from __future__ import annotations

import pytest

from tests import limited

ROOMS = ("api", "hosts", "runnables", "ui")
#: their texts are the operator's: settings that name models, and names of files (255 characters)
OPERATORS = (
    "runnables.checkpoints.catalog.HUB_ID",
    "runnables.checkpoints.layout.CONFIGURATION",
    "runnables.checkpoints.layout.WEIGHTS",
)
IMPORTS = f"""
import importlib, pathlib, pkgutil
found = {{}}
for room in {ROOMS!r}:
    package = importlib.import_module(room)
    for one in pkgutil.walk_packages(package.__path__, f"{{room}}."):
        source = one.module_finder.find_spec(one.name).origin
        if "re.compile" not in pathlib.Path(source).read_text():
            continue
        module = importlib.import_module(one.name)
        for name, value in vars(module).items():
            if isinstance(value, re.Pattern) and f"{{one.name}}.{{name}}" not in {OPERATORS!r}:
                found.setdefault(value, f"{{module.__name__}}.{{name}}")
"""
#: A pattern has 3 s of CPU time. A search that begins anew at every character, and goes to the end
#: each time, needs far more for one of these texts; a linear one takes milliseconds for each.
ATTACK = r"""
import resource, time

def pieces(pattern):
    '''Return what such a text may consist of: marks in the pattern, and one of each other kind.'''
    return sorted({*(one for one in pattern.pattern if not one.isalnum()), *' \n\ta0'})

def texts(pattern):
    characters = pieces(pattern)
    for piece in characters:
        yield piece * 200_000
    for one, other in itertools.permutations(characters, 2):
        yield (one + other) * 10_000
        yield one + other * 20_000
        for piece in characters:  # what takes exponential time needs few
            yield piece + (one + other) * 30

for pattern, name in found.items():
    print(name, flush=True)
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + 4, most))
    for text in texts(pattern):
        for _ in pattern.finditer(text + "\0"):
            pass
        pattern.fullmatch(text + "\0")
print("all", flush=True)
"""


def attack(imports: str) -> list[str]:
    """Attack what the imports find; return the patterns' names, and "all" if it came to the end."""
    return limited.run(f"import itertools, re\n{imports}", ATTACK, seconds=300).stdout.split()


def test_no_pattern_takes_more_than_linear_time() -> None:
    names = attack(IMPORTS)
    assert names[-1] == "all", f"{names[-1]} takes too long"
    assert len(names) > 15
    assert "runnables.attention._TOKEN" in names


@pytest.mark.parametrize("slow", [r"\s*+\[[0-9a-f]++\]$", r"(a+)+b", r'"(?:\\.|[^"])*"'])
def test_a_slow_pattern_is_noticed(slow: str) -> None:
    assert attack(f"found = {{re.compile({slow!r}): 'slow'}}") == ["slow"]
