"""The referee: it knows the true gradient, and what rounding may do to it, so it needs no tolerance.

enclosure   proven balls around the true gradient
budget      how far a correct program may be off
verdict     agree, wrong or inconclusive, element by element
diagnosis   why it is wrong
verify      the whole: every implementation of a problem before the referee
"""
