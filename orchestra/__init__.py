"""orchestra: a filesystem-native spawn supervisor for detached workers.

A run is a directory. Commands are short-lived: they read it, decide, act, and write
down what they did. The layers, each importing only what stands to its left:

    errors < model < {store, host} < backend < engine < cli
"""

__version__ = "0.1.0"
