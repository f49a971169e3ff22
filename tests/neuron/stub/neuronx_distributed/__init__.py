from hollow import hollow

__version__ = "2.8.0"
hollow(__name__)
