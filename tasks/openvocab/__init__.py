"""Open vocabulary on disk: CoOp's eleven data sets, the variants of ImageNet, and the four benchmarks on them."""
