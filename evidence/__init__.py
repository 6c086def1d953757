"""What the papers claim, tried at small scale: one file a claim; `python -m evidence` runs them and writes the page.

A claim is a module of evidence/claims with three parts: its docstring states the claim in the first paragraph, and then
who made it and how it is tried here; `numbers(work, quick)` tries it and returns what a JSON file can hold;
`result(numbers)` makes of these alone the statements with their verdicts and the Markdown of the page.
"""
