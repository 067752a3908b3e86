"""Runnable experiments: python -m experiments.mnist, python -m experiments.predict."""
