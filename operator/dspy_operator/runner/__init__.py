"""What a Job's pod runs: load -> build -> optimize -> judge -> publish, every model call through one Ledger.

The only package that imports dspy.
"""
