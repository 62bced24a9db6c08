"""The steps of `up`, one file each, in the order of plan.py."""
