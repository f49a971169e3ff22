"""`python -m runnables`: every setting, its default and its meaning."""

from runnables.settings import Settings

print(Settings.describe())
