"""Upkeep: what those who look after a store do to the whole of it."""
