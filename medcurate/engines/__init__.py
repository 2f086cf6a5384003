"""Engines: run jobs somewhere; they know no medicine. One conformance test runs all of them."""
