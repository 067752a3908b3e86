"""How JAX turns a primitive into code for CPU: the one file that touches what JAX keeps private.

JAX keeps, for each primitive, a rule that writes it down for the compiler, and a public function to register another
one. Private are only the table with the stock rules, which we must call and put back, and the words in which a rule is
told what it is compiled for. `missing` names what is no longer where it was; nothing else here is called then.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import mlir

# Takes the abstract operands and the parameters; gives a function of the operands, or None for the stock rule.
Chooser = Callable[..., Callable[..., jax.Array] | None]


# Any, for pyright knows no types of what is private; None where it has moved, and `missing` says so.
_core: Any = None
_sharding: Any = None
_mlir: Any = None
try:
    import jax._src.core
    import jax._src.interpreters.mlir
    import jax._src.sharding_impls
except ImportError:
    pass
else:
    _core, _sharding = jax._src.core, jax._src.sharding_impls
    _mlir = jax._src.interpreters.mlir
_NAMES = {
    "jax.interpreters.mlir": (mlir, ("register_lowering", "lower_fun")),
    "jax._src.interpreters.mlir": (_mlir, ("_lowerings", "_platform_specific_lowerings")),
    "jax._src.sharding_impls": (_sharding, ("ShardingContext", "SPMDAxisContext")),
    "jax._src.core": (_core, ("ShapedArray",)),
}
_stock: dict[Primitive, tuple[Callable[..., Any], bool]] = {}  # rule, and whether it was CPU's own


def missing() -> list[str]:
    """The names of JAX's internals that have moved: empty where this file can be used."""
    return [
        f"{where}.{name}" for where, (module, names) in _NAMES.items() for name in names if not hasattr(module, name)
    ]


def replace(primitive: Primitive, choose: Chooser) -> None:
    """Compile the primitive for CPU as `choose` says, where it says something and a program may be changed."""
    own = _mlir._platform_specific_lowerings["cpu"]
    if primitive not in _stock:
        _stock[primitive] = (own.get(primitive) or _mlir._lowerings[primitive]).rule, primitive in own
    stock, _ = _stock[primitive]

    def rule(ctx: Any, *operands: Any, **params: Any) -> Any:
        formulation = choose(*ctx.avals_in, **params) if _is_whole(ctx) else None
        if formulation is None:
            return stock(ctx, *operands, **params)
        # What shard_map tracks about values that vary over devices would make loops inside a formulation ill-typed.
        plain = [_core.ShapedArray(aval.shape, aval.dtype) for aval in ctx.avals_in]
        return mlir.lower_fun(formulation, multiple_results=False)(ctx.replace(avals_in=plain), *operands)

    mlir.register_lowering(primitive, rule, platform="cpu")


def restore_all() -> None:
    """Compile every primitive by JAX's own rule again."""
    while _stock:
        primitive, (stock, cpus_own) = _stock.popitem()
        if cpus_own:
            mlir.register_lowering(primitive, stock, platform="cpu")
        else:
            del _mlir._platform_specific_lowerings["cpu"][primitive]


def _is_whole(ctx: Any) -> bool:
    """Whether a formulation may stand here: compiled for one CPU at known sizes, not divided by the compiler later."""
    module = ctx.module_context
    if module.lowering_parameters.for_export or tuple(module.platforms) != ("cpu",):
        return False
    if not all(isinstance(n, int) for aval in ctx.avals_in for n in aval.shape):
        return False
    context = module.axis_context
    if isinstance(context, _sharding.SPMDAxisContext):
        return context.manual_axes == frozenset(context.mesh.axis_names)
    return isinstance(context, _sharding.ShardingContext) and context.num_devices == 1
