"""Whether to trust a prediction: calibration, images of no known class, label sets, intervals."""
