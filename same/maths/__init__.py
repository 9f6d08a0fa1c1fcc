"""The formulas as pure functions of tensors: covariance, routing, curvature, freezing, drift."""
