"""A noise schedule that changes while a DiT is tuned (DriveDiTFit, Tu et al. 2024, arXiv 2407.15661).

    stage k of 6, each a sixth of the training:     beta_t = min(linear beta_t, 1 - f_n((t + 1) / T) / f_n(t / T))
    f_n(u) = cos^n((u + 0.008) / 1.008 pi / 2),     n = 6, 5, 4, 3, 2 for k = 1 .. 5;  stage 0 is linear alone

The linear betas are those that DiT was trained with. Stage by stage an image keeps more of itself at the same t, up to
abar_999 = 0.0036 in the last. A model that was tuned so is sampled with the last stage; its file holds the schedule's
name in `noise_schedule`.
"""

import math
from functools import cache

import torch

from sampling.flow import OBJECTIVES, Flow
from sampling.schedule import NoisePath, Schedule

POWERS = (6, 5, 4, 3, 2)  # n of the stages 1 .. 5
NOISE_SCHEDULES = ("fixed", "progressive")


def dit_schedule(name: str = "fixed", progress: float = 1.0, objective: str = "diffusion") -> NoisePath:
    """The schedule of a DiT that is tuned with `name`, at the share `progress` of its training; 1 is also for sampling.

    objective: of the model; a "flow" has the straight path and no other. Raises ValueError for another objective, and
    for a name that is not in NOISE_SCHEDULES.
    """
    if name not in NOISE_SCHEDULES:
        raise ValueError(f"noise_schedule must be {' or '.join(NOISE_SCHEDULES)}, found {name!r}")
    if objective not in OBJECTIVES or (objective == "flow" and name != "fixed"):
        raise ValueError(f"a model of the objective {objective!r} has no noise schedule {name!r}")
    if objective == "flow":
        return Flow()
    return stage(min(int(6 * progress), 5) if name == "progressive" else 0)


@cache
def stage(k: int, T: int = 1000) -> Schedule:
    """The schedule of stage k of the module's six."""
    linear = torch.linspace(1e-4, 0.02, T, dtype=torch.float64)
    if k == 0:
        return Schedule.from_betas(linear)
    u = torch.arange(T + 1, dtype=torch.float64) / T
    f = torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** POWERS[k - 1]
    return Schedule.from_betas(torch.minimum(linear, 1 - f[1:] / f[:-1]))
