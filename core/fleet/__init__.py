"""The fleet as the core knows it: who may join (`enrolment`), whose world has changed (`drift`), what its predictions
really were (`labels`), and when the core learns from that by itself (`retraining`)."""
