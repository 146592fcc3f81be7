"""nearcast: deploy a model once; any request, sent to any site, is answered by the best place that may answer it."""

__version__ = "0.2.0"
