"""Engines: run jobs somewhere; they know no medicine. One conformance test runs all of them.

An engine is an ``engines.types.EngineModule``. Adding one is one file and one line here.
"""

ENGINES = {
    "pool": "medcurate.engines.pool",
    "ray": "medcurate.engines.ray",
    "serial": "medcurate.engines.serial",
}
