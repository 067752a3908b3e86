"""Runnable experiments: python -m experiments.mnist, experiments.predict and experiments.bench."""
