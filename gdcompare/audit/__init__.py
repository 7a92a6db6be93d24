"""The audit: every differentiable operation of a framework against the proven truth of each.

subject     what a framework offers: operations, examples of their arguments, routes to a derivative
regions     where they are asked: ordinary points and boundary points
known       what is true there, what rounding may do, what the inputs allow
judging     one operation: its rows
results     all rows: shown, saved, loaded
run         operation after operation, each guarded
page        all of it as HTML, or for the docs
"""
