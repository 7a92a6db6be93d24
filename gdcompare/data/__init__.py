r"""Data to differentiate over, `gdcompare.datasets`: the seed's noisy line, four real sets, small integers, your files.

Importing this needs NumPy alone, and nothing here touches the network; scikit-learn and pyarrow come with
`pip install 'gdcompare[data]'` and are imported by the functions that need them.
"""

from gdcompare.data.builtin import breast_cancer, diabetes, digits, integer_lattice, noisy_line, wine
from gdcompare.data.choose import blocks, comes_in_blocks, example, load, names
from gdcompare.data.files import read
from gdcompare.data.prepare import one_hot, standardise, suited, suited_blocks

__all__ = [
    "blocks",
    "breast_cancer",
    "comes_in_blocks",
    "diabetes",
    "digits",
    "example",
    "integer_lattice",
    "load",
    "names",
    "noisy_line",
    "one_hot",
    "read",
    "standardise",
    "suited",
    "suited_blocks",
    "wine",
]
