"""What a run will cost before it is begun: votes, time, memory and money, and what would save some of it.

A few inputs are voted on by the very engine of the run, for the speed of every base classifier and an idea of its
class probabilities. The run's own procedures are then replayed on simulated votes (docs/planning.md).
"""

from dualrs.evaluation.planning._figures import Devices, Estimate, Forecast, Memory, ModelWork, Option
from dualrs.evaluation.planning._forecast import forecast
from dualrs.evaluation.planning._rendering import render

__all__ = ["Devices", "Estimate", "Forecast", "Memory", "ModelWork", "Option", "forecast", "render"]
