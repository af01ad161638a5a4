"""Models on disk: find, check and load a pretrained one, and export a student with its card.

It may import tasks, run, data, recipe and method; inference, teacher and the stages use it.
"""
