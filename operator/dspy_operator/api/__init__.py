"""What people write and read: the kinds of group `dspy-operator.io`, their fields, conditions and reasons.

Imports nothing of ours. CustomResourceDefinitions and the reference are generated from here.
"""
