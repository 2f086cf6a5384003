"""A trained model put to use: load it, set an image, give prompts."""
