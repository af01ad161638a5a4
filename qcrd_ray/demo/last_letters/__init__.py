"""The task `last_letters` with a recorded teacher: its questions, and a base that lacks four words.

Imports the packages below `demo`: inference, tasks, data, recipe and method.
"""
