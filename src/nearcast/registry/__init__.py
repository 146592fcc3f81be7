"""Releases, plans and bytes: who vouches for what, and how it gets to a site unharmed.

Repository side (control plane): :mod:`objects`, :mod:`blobs`, :mod:`releases`, :mod:`plans`. Releaser's side:
:mod:`release` (describe a model), :mod:`keys`, and the pure functions of :mod:`release_list`. Site side: :mod:`fetch`,
:mod:`client` (verify metadata), :mod:`artifacts` (verify and keep bytes). What each key may do, and what a thief of it
could do, is in ``docs/explanation/trust.md``.
"""
