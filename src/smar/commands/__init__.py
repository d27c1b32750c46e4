"""What the command line does, a module a command: its docstring is the help, `arguments` what it takes, `run` its work.

Reading order: `command` (what such a module is and how it is called), any of the commands, `arguments` (types of what
is typed, options that several share), `parser` (all of them). They import their stage when they run: `--help` answers
at once.
"""
