"""Looks at the machine, Python, Paddle, the packages and the data sets, and says in Chinese what to do about each.

Nothing here installs, downloads or changes anything.
"""
