r"""Short trainings compared with their earlier numbers, so that no change goes unnoticed.

A case is a fixed training with a baseline, one file of ``results/regression/``.  There are two
kinds.

A *trace* is some iterations on generated images, in float64.  Its numbers are the losses of every
iteration, of each structure where there are some, :math:`\theta` after every iteration, and all
parameters, statistics and results at the end.  Each must agree with the baseline to within
:data:`traces.TOLERANCE`.  The smallest change of the method exceeds it, while another BLAS, which
adds in another order, stays hundreds of times below.  Only one thing could make a rounding large:
two structures whose losses lie so close that the rounding decides which ranks first.  So a baseline
is written only if the losses of every iteration differ by at least :data:`traces.MARGIN`.

A *short run* is a training on the real data, in float32 like all runs.  Its test error and its
structure must lie in the bands of the baseline.  In float32 roundings decide rankings, so a seed on
another machine gives a result that another seed could have given here, and a band is computed from
:data:`runs.SEEDS` seeds.  The mean of :data:`runs.AGAIN` seeds may differ from their mean by at
most :data:`runs.WIDTH` standard errors of the difference; a normal quantity exceeds this with a
probability of 9e-5.
"""

from reproduce.regress.baselines import BASELINES
from reproduce.regress.cases import RUNS, TRACES, Case
from reproduce.regress.commands import regress

__all__ = ["BASELINES", "RUNS", "TRACES", "Case", "regress"]
