"""Verify: is a dataset what its record says, and do its tables and shards agree?"""
