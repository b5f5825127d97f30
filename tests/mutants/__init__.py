"""Score the tests by a sample of faults: a test that runs the line of one must fail.

mutate.py         which faults there are
equivalent.toml   faults that change nothing, each with its reason
watch.py          a pytest plugin: which test runs which line (coverage), and for how long
lines.py          that map, kept from commit to commit
trial.py          one fault, and the tests that run its line
"""
