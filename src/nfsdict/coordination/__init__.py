"""Coordination: what processes on many hosts do together. It works on what ``NfsDict`` gives it."""
