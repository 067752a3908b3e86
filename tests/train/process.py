"""One of several processes that train together: python process.py COORDINATOR COUNT NUMBER FOLDER.

Writes what every wrapper made of the parameters in float64, and the first gradients in float32.
"""

import sys
from pathlib import Path

import jax
import numpy as np
from train_helpers import first_gradients, trained

from cnnjax import train

WRAPPERS = {"jit": train.parallel.jit, "pmap": train.parallel.pmap, "sharded": train.parallel.sharded}


def main(coordinator: str, count: int, number: int, folder: Path) -> None:
    """Train for twenty steps under every wrapper."""
    train.processes.join(coordinator, count, number)
    assert (jax.process_count(), len(jax.devices())) == (count, 2 * count)
    for name, wrap in WRAPPERS.items():
        state, metrics = trained(wrap, "ours", steps=20, share=(number, count))
        gradients = first_gradients(wrap, share=(number, count))
        with jax.enable_x64(True):
            whole = train.parallel.gathered((state.params, state.model_state))
        leaves = jax.tree.leaves((whole, metrics, gradients))
        np.savez(folder / f"{name}_{number}.npz", *map(np.asarray, leaves))
        if name == "sharded":
            held = sum(shard.data.nbytes for leaf in jax.tree.leaves(state) for shard in leaf.addressable_shards)
            (folder / f"held_{number}").write_text(str(held))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
