"""Tables, where a report's other parts look for them; `gdcompare.table` has them, below everything that is shown."""

from gdcompare.table import number, table, vector

__all__ = ["number", "table", "vector"]
