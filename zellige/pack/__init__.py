"""Kept weights as compact arrays, and the ``.zlg`` file that holds a network.

``blocks.py`` turns a weight into its kept blocks and back; ``constants.py`` does so for all weights of a graph;
``container.py`` knows the bytes of a file, ``strict_json.py`` the text in it; ``source.py`` holds a file open and
``tensors.py`` reads what lies in it; ``atomic.py`` writes it whole or not at all, ``path.py`` is where; ``file.py`` saves and
loads a ``Graph``.
The format itself stands in ``docs/file-format.md``.
"""

from zellige.pack.file import load_graph, save_graph

__all__ = ["load_graph", "save_graph"]
