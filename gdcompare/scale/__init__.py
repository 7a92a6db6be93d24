"""Gradients of data in blocks: sums over rows in one order, in this process or over several.

The sum over the rows of a block is the backend's, in its dtype; blocks are added in a fixed tree, in float64.
"""
