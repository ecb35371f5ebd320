"""Trained networks become signed releases: export, quantization, measurement, gates, then registry and
publishing.

Read `export`, `quantize`, `scorecard`, `gates` (pure) in this order; they end in a judged candidate.
`registry` takes accepted ones further. `metadata`, `layout` (whose keys count), `signing` (what people sign) and
`publish` (what the steward signs) are the tenant's TUF repository. What does not belong: training, and deciding who
gets a release when.
"""
