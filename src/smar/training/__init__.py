"""Two-stage training: batches, steps, checkpoints.

Reading order: `train` goes through the stages that `stages` plans, `setup` and `build` make what a stage needs,
`batches` its batches; `trainer` is the step, `stage_losses` and `losses` what it minimises; `gate`, `voices` and
`validation` look at held-out pairs; `warm` goes on from another run.
"""

from smar.training.losses.objective import Terms, register_loss

__all__ = ["Terms", "register_loss"]
