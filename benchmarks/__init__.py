"""Fair times: the same gradients and the same descents, side by side.

    pytest benchmarks                        times everything and prints the tables, some minutes
    pytest benchmarks --benchmark-disable    runs everything once, checks every answer, times nothing
    pytest benchmarks -k ratio               only the ratios to the loops that a person would write
    pytest benchmarks --benchmark-json=PATH  keeps every sample, with versions, sizes, threads and errors
    python -m benchmarks.timer_error         how often the timer itself is wrong on this machine

Times are shown and never asserted; answers are asserted before their times are shown.
"""
