"""Rows become datasets: the window views that training and gates look through.

`views` is all of it today. What does not belong: a second way to cut windows (`sync.windows` is the only
one, on both sides) and reading the lake's files, which the caller does.
"""
