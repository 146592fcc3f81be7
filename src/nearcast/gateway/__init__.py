"""The gateway of a node: an Envoy that is configured by files, and the pure renderer of those files.

`render` decides what Envoy shall do; `Gateway` (in `gateway.apply`) makes a running Envoy do it, all or nothing.
Neither decides shares (`planning.routes`) nor residency (`planning.residency`), though the renderer asks the latter
again.
"""
