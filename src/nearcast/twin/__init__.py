"""The digital twin: the planning code of nearcast over a simulated fleet and a virtual clock, beside other policies.

`scenario` is what a user writes, `files` reads it and the data that it names, `world` and `workload` make arrays of
it, `simulation` runs them under a policy of `policies`, `measures` and `bound` say how good that was. Everything but
`files` is pure: a scenario, a seed and a policy give the same figures bit for bit.
"""
