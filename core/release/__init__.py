"""Trained networks become signed releases: export, quantization, measurement, gates, then registry and
publishing.

Read `export`, `quantize`, `scorecard`, `gates` (pure) in this order; they end in a judged candidate.
`registry` and `publish` take accepted ones further. What does not belong: training, and deciding who gets a
release when.
"""
