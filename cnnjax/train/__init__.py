"""Training as pure functions over a pytree: state in, state out.

state       TrainState; create it from any nnx model, merge it back into one
step        make_train_step, make_eval_step: pure, unjitted
parallel    the wrappers that run a step: jit on one device, pmap and sharded on many
processes   join: several processes, on one host or many, that train as one
loop        fit, evaluate, predict; Diverged, where they end in nan
apply       apply, mode: ours and stock models in training or evaluation mode
checkpoint  save, restore
"""

from cnnjax.train import checkpoint, parallel, processes
from cnnjax.train.apply import apply, mode
from cnnjax.train.loop import Diverged, evaluate, fit, predict
from cnnjax.train.state import TrainState, create, merge
from cnnjax.train.step import Batch, EvalStep, LossFn, MetricFn, TrainStep, make_eval_step, make_train_step

__all__ = [
    "TrainState",
    "create",
    "merge",
    "make_train_step",
    "make_eval_step",
    "Batch",
    "LossFn",
    "MetricFn",
    "TrainStep",
    "EvalStep",
    "parallel",
    "processes",
    "fit",
    "evaluate",
    "predict",
    "Diverged",
    "apply",
    "mode",
    "checkpoint",
]
