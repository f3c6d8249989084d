"""Bases in 8 and 4 bits: the official packed form, and what loading makes of a full one."""
