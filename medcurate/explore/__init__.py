"""What reads a dataset for people: SQL, statistics, charts, pictures. Nothing here opens a volume."""
