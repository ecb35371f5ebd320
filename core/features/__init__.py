"""Rows become datasets: the window views that training and gates look through (`views`), the labelled windows that
devices sent (`field`), and the columns of tables beside both (`lookups`).

What does not belong: a second way to cut windows (`sync.windows` is the only one, on both sides) and reading the lake's
files, which the caller does.
"""
