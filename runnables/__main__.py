"""`python -m runnables` prints every setting, its default and its meaning."""

import argparse

from runnables.settings import Settings

parser = argparse.ArgumentParser(prog="python -m runnables", description=__doc__)
parser.add_argument("--markdown", action="store_true", help="as a page: docs/settings.md")
print(Settings.page() if parser.parse_args().markdown else Settings.describe())
