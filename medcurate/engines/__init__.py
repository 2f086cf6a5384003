"""Engines: run jobs somewhere; they know no medicine. One conformance test runs all of them.

An engine is a module with ``run``, an ``engines.types.Engine``. Adding one is one file and one line here.
"""

ENGINES = {
    "pool": "medcurate.engines.pool",
    "serial": "medcurate.engines.serial",
}
