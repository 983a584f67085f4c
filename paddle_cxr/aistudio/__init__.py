"""Prepares a fork on AI Studio: its Paddle is used as it is, what else is needed goes where a restart leaves it.

Only the standard library is imported here: this runs before the packages are installed.
"""
