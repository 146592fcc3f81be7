"""Pure decisions: what runs where, who may be asked, who is asked first, and why.

No clock, no I/O, no randomness: ``now_s`` and observations come in, plans and tables come out, so that the control
plane, a site that is cut off, and the digital twin decide alike on the same facts.
"""
