"""The network map: round trips between all sites, out of the few pairs that anybody measured.

`measurements` keeps what agents reported, `coordinates` places sites in a space where distance is round trip, `nearby`
corrects that by what near sites measured, `map` puts it together with its uncertainty, `scouts` says which other sites
are worth a measurement. Everything is a pure function of arrays; docs/explanation/network-map.md has the figures.
"""
