"""Torture: damaged slides, hostile files and sudden deaths, in numbers; `make torture` runs all of it.

Every part counts what it tried and how it ended, and any end that breaks a promise of the program (a traceback, a
signal, a hang, a flood of memory, a lost result) makes the command fail.
"""
