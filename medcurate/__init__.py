"""medcurate: reproducible medical image corpora for promptable segmentation, and training on them."""

__version__ = "0.1.0"
