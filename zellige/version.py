"""The version of this package: known without a search for what is installed, which takes a megabyte and a half of memory."""

__version__ = "0.1.0"
