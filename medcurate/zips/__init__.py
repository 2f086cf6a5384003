"""Zip archives read by position: one file, the parts of a split one, or such parts joined to one file.

Source of all layouts: PKWARE's APPNOTE.TXT 6.3.10 (cited by section), and for AES the WinZip AE-1/AE-2
specification. ``zipfile`` reads neither several volumes nor archives whose directory does not fit in memory.
"""
