"""SVAMP with slots: its split by stories, and a base that has learnt to read word problems.

Imports the packages below `demo`: inference, tasks, data, recipe and method.
"""
