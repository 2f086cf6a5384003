"""A batch to the losses of its optimiser steps, as the published works take them."""
