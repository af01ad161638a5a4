"""The two small models that the demo runs on, and the code that makes and measures them.

Imports the packages below: tasks, data and recipe.
"""
