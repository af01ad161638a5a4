"""Ray: connect to it, check and wait for resources, set up Ray Data, keep noise off the screen.

Imports the recipe and nothing else of the package. All uses of Ray's private interfaces lie in
`ray_internals`.
"""
