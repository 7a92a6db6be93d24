"""The pictures: each takes results and returns a Matplotlib figure; `write` writes one, `animate` a film.

They need `pip install 'gdcompare[plot]'`, and load Matplotlib when one of them is called. With `on`, a part of a figure
of yours (`matplotlib.figure.SubFigure`), they draw there.
"""

from gdcompare.report.agreement import budget_shares, digits, heat_map, layers, training
from gdcompare.report.animation import animate
from gdcompare.report.look import write
from gdcompare.report.losses import distances, losses
from gdcompare.report.moving_line import moving_line
from gdcompare.report.paths import coinciding, surface
from gdcompare.report.posters import of_comparison, of_descents, of_laws, of_report
from gdcompare.report.sample_gradients import cloud, fan

__all__ = [
    "animate",
    "budget_shares",
    "cloud",
    "coinciding",
    "digits",
    "distances",
    "fan",
    "heat_map",
    "layers",
    "losses",
    "moving_line",
    "of_comparison",
    "of_descents",
    "of_laws",
    "of_report",
    "surface",
    "training",
    "write",
]
