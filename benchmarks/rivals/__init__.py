"""Servers to measure against, each as small as its library lets it be, all with the same two graphs.

`graphs` makes the models, `client` asks; `ours` is the agent's HTTP door; `asgi`, `lit` and `mlserver_model` run
under another environment's Python, see `benchmarks/serving.py`.
"""
