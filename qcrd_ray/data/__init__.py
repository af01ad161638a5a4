"""Rows: their schemas, the sources that they are read from, and questions that splits share.

Imports the recipe; depends on no task and not on Ray.
"""
