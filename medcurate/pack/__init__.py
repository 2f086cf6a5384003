"""Pack: dataset in, dataset out. Also the last step of every build, whose parts are its input."""
