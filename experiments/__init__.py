"""Many runs of train.py from one TOML file, and their table: compare.py and `python -m experiments.search`.

plan.py reads a comparison; run.py trains each run in a process of its own and resumes it; log.py reads what a run
wrote; comparison.py samples and measures; table.py and page.py show the numbers. settings.py alone knows the configs of
train.py and sample.py.
"""
