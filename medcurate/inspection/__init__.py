"""A first look at a lab's folder: what is there, how it seems to pair, and a draft of its source file.

Nothing here decides what a build does: a guess becomes a fact only when its author answers the draft's
questions. Only names of files, names of drawn structures (keys of [labels]) and numbers are reported, never
other texts of headers but one: what the pairing calls a case, which in DICOM collections holds the Patient ID. A
draft names no case.
"""
