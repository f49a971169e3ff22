"""The benchmarks compare with what people run today, in one run, and print ratios."""
