"""Which runs may start: grants of endpoints' slots over all waiting runs. One key, since one decision is made for all."""
