"""Callbacks for loops of others, one file each; a file needs its library only when it is imported."""
