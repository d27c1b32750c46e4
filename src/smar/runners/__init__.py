"""Work in parts: `run` gives them to this process, to processes of this machine, or to a Ray cluster.

Read `run`, which names what fails, then `local` and `ray`. A task leaves its result in a file that is whole or absent,
and looks by itself whether it is there: so parts can be tried again, and what was interrupted goes on.
"""
