"""Archives to folders: regular files only, inside of a fresh folder, within bounds, every checksum read.

``unpack`` makes the folder, ``damaged_members`` tells what had to be left out of it.
"""

from medcurate.unpack.record import Refused, Unpacked, damaged_members
from medcurate.unpack.run import DamagedArchive, unpack
from medcurate.unpack.siblings import Sibling

__all__ = ["DamagedArchive", "Refused", "Sibling", "Unpacked", "damaged_members", "unpack"]
