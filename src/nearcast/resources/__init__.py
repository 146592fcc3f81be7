"""The vocabulary of nearcast: what users write, and what its processes tell one another. Frozen, validated, no I/O.

Two families, two tools. What users write (:mod:`~nearcast.resources.kinds`) is pydantic, for its error locations and
JSON Schema. What our own processes exchange (releases, site plans, load reports, node status) is msgspec structs:
strict, frozen, and light enough for the engine. Nothing is imported here, so that a reader of one word pays for one.
"""
