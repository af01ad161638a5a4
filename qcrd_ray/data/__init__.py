"""Rows: their schemas, the sources that they are read from, and questions that splits share.

Imports the recipe; knows no task and no Ray.
"""
