"""The trainer, imported as ``medcurate.train``."""
