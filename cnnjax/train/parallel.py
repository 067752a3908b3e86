"""The wrappers that run one step on one or many devices, with one meaning: `run(state, batch, ...)`.

A batch is always the global one; where several processes run, each gives its share of it. The only `pmap` of the
project is here.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cnnjax.train.state import TrainState

AXIS = "batch"
FSDP = "fsdp"
"""The axis of a mesh over which `sharded` splits the state."""

_WORTH_SPLITTING = 1024  # elements; of less, every device keeps a copy


def jit(step: Callable[..., Any], *, donate: bool = False) -> Callable[..., Any]:
    """Compile a train or eval step for one device; where several processes run, for one of each.

    Args:
        step: from `make_train_step` or `make_eval_step`.
        donate: whether a step may use the memory of the state that it is given, which is gone then.

    Returns:
        run(state, batch, *rest), what the step returns.

    Raises:
        Nothing.

    Example:
        >>> train.parallel.jit(lambda state, batch, axis_name=None: state + batch)(1, 2)
        Array(3, dtype=int32, weak_type=True)

    Source:
        jax.jit.
    """
    if jax.process_count() > 1:
        firsts = {device.process_index: device for device in reversed(jax.devices())}
        mesh = Mesh([firsts[number] for number in sorted(firsts)], ("process",))
        return sharded(step, mesh, donate=donate)
    return jax.jit(partial(step, axis_name=None), donate_argnums=_donated(donate))


def pmap(step: Callable[..., Any], *, devices: Sequence[Any] | None = None, donate: bool = False) -> Callable[..., Any]:
    """Run a train or eval step on every device, each on its share of the batch.

    State, key and results are the same on all devices; the batch is split along its first axis. In float64 the
    parameters equal one device's to rounding; noise that is drawn for a whole batch (dropout) differs by shard.

    Args:
        step: from `make_train_step` or `make_eval_step`.
        devices: which ones; None is all, of every process.
        donate: as of `jit`; several processes never do.

    Returns:
        run(state, batch, *rest), what the step returns. It raises ValueError for a batch that does not divide over
        the devices.

    Raises:
        Nothing.

    Example:
        >>> total = train.parallel.pmap(lambda state, batch, axis_name: jax.lax.psum(state * batch.sum(), axis_name))
        >>> float(total(2.0, jnp.ones(8)))
        16.0

    Source:
        jax.pmap.
    """
    devices = list(jax.devices() if devices is None else devices)
    here = sum(device.process_index == jax.process_index() for device in devices)

    def split(leaf: Any) -> Any:
        if leaf.shape[0] % here:
            raise ValueError(
                f"pmap: a batch must divide over the devices, got {leaf.shape[0]} examples for {here} devices."
                f" Use a multiple of {here}."
            )
        return leaf.reshape(here, leaf.shape[0] // here, *leaf.shape[1:])

    bound = partial(step, axis_name=AXIS)

    def run(state: Any, batch: Any, *rest: Any) -> Any:
        in_axes = (None, 0, *(None for _ in rest))
        mapped = compiled.setdefault(
            len(rest),
            jax.pmap(
                bound,
                axis_name=AXIS,
                in_axes=in_axes,
                out_axes=None,
                devices=devices,
                # What each process gives is spread over all devices first, and gone before that.
                donate_argnums=_donated(donate and jax.process_count() == 1),
            ),
        )
        return mapped(state, jax.tree.map(split, batch), *rest)

    compiled: dict[int, Callable[..., Any]] = {}
    return run


def sharded(step: Callable[..., Any], mesh: Mesh | None = None, *, donate: bool = False) -> Callable[..., Any]:
    """Let the compiler partition a train or eval step over a mesh of devices.

    The batch is split over all devices. The state is split over the mesh's axis "fsdp", every array along its largest
    dimension that divides, and copied along the other axes; arrays of fewer than 1,024 elements are copied to all:

    - a mesh of one axis "fsdp": each of n devices holds an n-th of parameters, averages and optimiser state. Parameters
      are gathered for the step, and each device updates its own part (fully sharded data parallel, ZeRO)
    - a mesh of one axis of another name: data parallel, what `pmap` does
    - both, such as ("data", "fsdp"): copies of the state, each split over a group of devices

    The program is that of one device, noise included. On CPU `cnnjax.accelerate` leaves partitioned programs to XLA, so
    there `pmap` is the faster one.

    Args:
        step: from `make_train_step` or `make_eval_step`.
        mesh: devices with named axes; None is one axis "fsdp" of all devices.
        donate: as of `jit`.

    Returns:
        run(state, batch, *rest), what the step returns, the state split as above. It raises ValueError for a batch that
        does not divide over the devices.

    Raises:
        Nothing.

    Example:
        >>> run = train.parallel.sharded(lambda state, batch, axis_name: state * batch.sum())
        >>> float(run(2.0, np.ones(8)))
        16.0

    Source:
        Rajbhandari et al. 2020, "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models"; Xu et al. 2021,
        "GSPMD".
    """
    # By JAX's own default, the axes of a mesh may be explicit: shardings would then be part of types in the model.
    mesh = Mesh(np.array(jax.devices()), (FSDP,)) if mesh is None else Mesh(mesh.devices, mesh.axis_names)
    everywhere, rows = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    split_over = mesh.shape.get(FSDP, 1)

    def split(leaf: Any) -> NamedSharding:
        shape = np.shape(leaf)
        axes = [axis for axis, n in enumerate(shape) if n % split_over == 0]
        if split_over == 1 or not axes or np.prod(shape) < _WORTH_SPLITTING:
            return everywhere
        axis = max(axes, key=lambda axis: (shape[axis], axis))
        return NamedSharding(mesh, PartitionSpec(*[None] * axis, FSDP))

    def spread(tree: Any) -> Any:
        return jax.tree.map(split, tree)

    @partial(jax.jit, donate_argnums=_donated(donate))
    def program(state: Any, batch: Any, *rest: Any) -> Any:
        if isinstance(state, TrainState):
            # Left to itself the compiler may gather activations instead, which are larger.
            state = replace(state, params=jax.lax.with_sharding_constraint(state.params, everywhere))
        results = step(state, batch, *rest, axis_name=None)
        return jax.lax.with_sharding_constraint(results, spread(results))

    def share(leaf: Any) -> Any:
        if leaf.shape[0] * jax.process_count() % mesh.size:
            raise ValueError(
                f"sharded: a batch must divide over the devices, got {leaf.shape[0] * jax.process_count()} examples for"
                f" {mesh.size} devices. Use a multiple of {mesh.size}."
            )
        if jax.process_count() == 1:
            return jax.device_put(leaf, rows)
        return jax.make_array_from_process_local_data(rows, np.asarray(leaf))

    def run(state: Any, batch: Any, *rest: Any) -> Any:
        first = jax.tree.leaves(state)[0]
        if not (isinstance(first, jax.Array) and first.sharding.is_equivalent_to(split(first), first.ndim)):
            state = jax.tree.map(_placed, state, spread(state))
        return program(state, jax.tree.map(share, batch), *rest)

    return run


def gathered(tree: Any) -> Any:
    """Copy what is spread over devices and processes to a device of each process, which can then do without the others.

    Every process must call it.

    Args:
        tree: any pytree of arrays, such as a state that a wrapper has returned.

    Returns:
        The same values; arrays that are on one device are themselves.

    Raises:
        Nothing.

    Example:
        >>> train.parallel.gathered({"a": jnp.ones(2)})
        {'a': Array([1., 1.], dtype=float32)}

    Source:
        jax.device_put.
    """

    def whole(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or len(leaf.sharding.device_set) == 1:
            return leaf
        if isinstance(leaf.sharding, NamedSharding) and not leaf.is_fully_replicated:
            leaf = jax.device_put(leaf, NamedSharding(leaf.sharding.mesh, PartitionSpec()))
        return leaf.addressable_data(0)

    return jax.tree.map(whole, tree)


def joint(tree: Any) -> Any:
    """Make arrays that every process holds alike into arrays of all of them, as what saves them together needs.

    Every process must call it.

    Args:
        tree: any pytree of arrays.

    Returns:
        The same values; where one process is alone, the same arrays.

    Raises:
        Nothing.

    Example:
        >>> train.parallel.joint({"a": jnp.ones(2)})
        {'a': Array([1., 1.], dtype=float32)}

    Source:
        jax.make_array_from_single_device_arrays.
    """
    if jax.process_count() == 1:
        return tree
    everywhere = NamedSharding(Mesh(np.array(jax.devices()), ("all",)), PartitionSpec())

    def spread(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return leaf
        copies = [jax.device_put(leaf.addressable_data(0), device) for device in jax.local_devices()]
        return jax.make_array_from_single_device_arrays(leaf.shape, everywhere, copies)

    return jax.tree.map(spread, tree)


def _placed(leaf: Any, sharding: NamedSharding) -> jax.Array:
    # What a checkpoint was read to is on a device of each process, from where JAX moves nothing to the others' devices.
    if isinstance(leaf, jax.Array) and leaf.is_fully_addressable and jax.process_count() > 1:
        return jax.make_array_from_callback(leaf.shape, sharding, leaf.__getitem__)
    return jax.device_put(leaf, sharding)


def _donated(donate: bool) -> tuple[int, ...]:
    return (0,) if donate else ()
