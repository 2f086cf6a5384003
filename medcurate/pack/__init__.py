"""Dataset in, dataset out: global deterministic shuffle, selection and resize."""
