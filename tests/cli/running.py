"""What tests of the command line share: a line run here, and a file of functions to be judged."""

from __future__ import annotations

import shlex

from click.testing import CliRunner, Result

from gdcompare.cli import commands

OWN = """\
def half(params, features, targets):
    residuals = params["theta_0"] + features @ params["theta_1"] - targets
    return (residuals**2).mean(), {"theta_0": residuals.mean(), "theta_1": 2 * residuals @ features / len(targets)}

def broken(params, features, targets):
    raise RuntimeError("no gradient today")
"""


def run(line: str) -> Result:
    """Run a line of the command in this process."""
    return CliRunner().invoke(commands, shlex.split(line), prog_name="gdcompare")
