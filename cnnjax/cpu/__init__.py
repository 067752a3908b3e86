"""How XLA compiles convolution and pooling for CPU, made fast: `accelerate` is the switch.

acceleration   the switch                    lowering       what it needs of JAX's internals
convolution    which formulation computes it: transposed, depthwise, grouped, volume, kernel_gradient
max_pool, max_pool_gradient, max_pool_tangent, sum_pool
library        the kernels these are built on: onednn's where its probe passed, XLA's elsewhere
"""

from cnnjax.cpu.acceleration import Acceleration, accelerate

__all__ = ["accelerate", "Acceleration"]
