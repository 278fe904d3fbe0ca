"""Attacks, counted: python -m tests.attack. The slow tests and those of damage, threads and hostile files use its parts."""
