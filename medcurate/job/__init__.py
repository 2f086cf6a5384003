"""A job: a bundle of cases to one part (an unshuffled tar with its rows). Pixels exist only in here."""
