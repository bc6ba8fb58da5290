"""Upkeep: checks, repairs and counts over a whole store, for those who look after it."""
