"""The generated shop of `smar demo`: drawn pictures and a simulated search log; every page that uses it says so.

Read `shop` first (what it writes), then `catalogue` (items and their words), `log` (queries, clicks, truth), and
`draw` with `fashion` and `appliances` (pictures).
"""
