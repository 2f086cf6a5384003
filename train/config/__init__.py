"""What a train recipe may say, as strict models. Imports no other part of the trainer."""
