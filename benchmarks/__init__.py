"""Comparisons with what people run today, all arms in one run, printed as ratios."""
