"""The demonstration: a small residual network on real images, all the way from training to the benchmark.

``digits`` holds the images, ``network`` the model, ``training`` the loop, ``story`` the way through all of it.
"""
