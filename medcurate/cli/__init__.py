"""The command line: one module a group of verbs; heavy imports happen inside the verbs."""
