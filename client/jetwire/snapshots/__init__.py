"""Snapshots from outside: freeze servers, run a provider, thaw, verify, and say in one word what came of it."""
